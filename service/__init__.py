"""What every process has: settings, metrics, an admin port, logs, an orderly end."""
