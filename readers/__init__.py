"""The readers: session tokens in, funnels out."""
