"""What all tests share; the servers are in tests/servers/."""

pytest_plugins = ["tests.servers.fixtures", "tests.spools", "tests.installed", "tests.patience", "tests.certificates"]
