"""Real servers for tests: from the environment, else a container, else a local process; else a skip with one line."""
