"""The commands are imported when they are asked for, and nobody can tell but by the time it takes."""

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from cli.main import COMMANDS, main
from tests.commands import PROGRAM
from tests.processes import PROGRAM as IN_PYTHON

HEAVY = {"alembic", "cryptography", "httpx", "ingest", "kafka", "numpy", "psycopg", "pydantic", "rich", "sqlalchemy"}


def imported_by(*arguments: str) -> set[str]:
    """The packages that a process has when it has run this command."""
    program = IN_PYTHON[-1].partition(";")[0]
    code = f"import sys\n{program}\ntry:\n    main({arguments!r})\nfinally:\n    print('\\n', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_list_says_of_a_command_is_its_own_short_help(name: str) -> None:
    command = main.load(name)
    assert command.name == name
    for room in (20, 45, 60, 200):
        assert main.commands[name].get_short_help_str(room) == command.get_short_help_str(room)
    assert (command.hidden, command.deprecated) == (False, False)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("edge", "--help"), ("worker", "-h"), ("reader", "--help")], ids=str
)
def test_help_imports_nothing_that_a_role_needs_to_run(arguments: tuple[str, ...]) -> None:
    assert not imported_by(*arguments) & HEAVY


def test_what_the_edge_imports_is_what_it_needs() -> None:
    code = "import sys; import cli.roles, ingest.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    has = {name.partition(".")[0] for name in done.stdout.split()}
    assert not has & {"alembic", "cryptography", "httpx", "jwt", "numpy", "rich", "workers", "readers"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_is_that_of_the_command_itself(name: str) -> None:
    found = CliRunner().invoke(main, [name, "--help"], prog_name="zenstep")
    assert found.exit_code == 0
    own = main.load(name)
    above = click.Context(main, info_name="zenstep")
    expected = own.get_help(click.Context(own, above, name, **main.context_settings))
    assert found.output.split() == expected.split()  # lines end where the terminal does


def test_an_unknown_command_is_a_mistake_with_a_suggestion() -> None:
    found = CliRunner().invoke(main, ["forgett"])
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.splitlines()[-1].startswith("Error: No such command 'forgett'. (Did you mean")
    assert "'forget'" in found.stderr
    found = CliRunner().invoke(main, ["--nonsense"])
    assert found.exit_code == 2
    assert "No such option" in found.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("zenstep for", ["plain,forget"]),
        ("zenstep key c", ["plain,create"]),
        ("zenstep audit --sp", ["plain,--spools-empty"]),
    ],
)
def test_a_shell_completes_commands_and_what_is_within_them(words: str, completed: list[str]) -> None:
    environment = os.environ | {
        "_ZENSTEP_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == completed
