"""The `zenstep` command, one file a command."""
