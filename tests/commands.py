"""The `zenstep` command for tests: in this process, where that is enough, and as the installed program."""

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from cli.main import main

PROGRAM = Path(sys.executable).with_name("zenstep")


class Zenstep:
    """The command, in this process, on one store and one log."""

    def __init__(self, store_url: str, folder: Path) -> None:
        self.environment = {"ZENSTEP_STORE_URL": store_url, "ZENSTEP_LOG_URL": f"sqlite:///{folder}/log.db"}
        self.folder = folder

    def run(self, *arguments: str) -> Result:
        return CliRunner(catch_exceptions=False).invoke(main, arguments, env=self.environment)

    def __call__(self, *arguments: str) -> str:
        """What it prints where all is well."""
        result = self.run(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        return result.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refuses(self, *arguments: str) -> str:
        """The line it says where a user has made a mistake; nothing else is printed, and no trace."""
        result = self.run(*arguments)
        assert (result.exit_code, result.stdout) in [(1, ""), (2, "")], result.output
        lines = result.stderr.splitlines()
        assert len(lines) == 1 or lines[0].startswith("Usage: "), result.stderr
        assert lines[-1].startswith("Error: ")
        return lines[-1].removeprefix("Error: ")

    def file(self, content: Any) -> str:
        file = self.folder / f"{uuid.uuid4()}.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(file)

    def organisation(self, name: str = "Acorn") -> str:
        return str(self.json("org", "create", name)["organisation_id"])
