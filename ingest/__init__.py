"""The edge: read, authenticate, validate, enqueue, answer."""
