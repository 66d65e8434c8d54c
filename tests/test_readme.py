"""Every command of README.md is run, in order, in one shell, against a real Kafka and a real PostgreSQL.

The addresses and ports that the README names are replaced by those of the test; an output block that follows a command
must be what the command prints, with `...` for what differs from run to run. Targets of make that would run these tests
again, or that need a container engine, are only looked up in the Makefile. A block of another kind fails.
"""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import time
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from cli.demo import demo
from service import settings
from tests.commands import PROGRAM
from tests.servers.ports import free_port

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
KAFKA = "kafka://localhost:9092"
POSTGRES = "postgresql://zenstep:zenstep@localhost:5432/zenstep"
PORTS = {
    "8080": "ZENSTEP_EDGE_PORT",
    "8081": "ZENSTEP_READER_PORT",
    "9101": "ZENSTEP_EDGE_ADMIN_PORT",
    "9102": "ZENSTEP_WORKER_ADMIN_PORT",
    "9103": "ZENSTEP_READER_ADMIN_PORT",
}
COUNTED_SECONDS = 60


class Block(NamedTuple):
    """A fenced block, and the output block that follows it with nothing in between."""

    line: int
    language: str
    text: str
    output: "Block | None"


def blocks() -> list[Block]:
    found: list[Block] = []
    after = 0  # where the last block ended
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        block = Block(README.count("\n", 0, match.start()) + 1, match[1], match[2], None)
        follows = found and found[-1].language == "sh" and README[after : match.start()].strip() == ""
        if follows and block.language in ("text", "json"):
            found[-1] = found[-1]._replace(output=block)
        else:
            found.append(block)
        after = match.end()
    return found


def commands(block: Block) -> list[str]:
    return block.text.strip().splitlines()


def is_make(block: Block) -> bool:
    return block.language == "sh" and all(line.startswith("make ") for line in commands(block))


WALK = [block for block in blocks() if block.language == "sh" and not is_make(block)]
MAKE = [line for block in blocks() if is_make(block) for line in commands(block)]


class Shell:
    """bash, fed block by block, so that variables and processes of one block are there for the next."""

    def __init__(self, folder: Path, environment: dict[str, str], addresses: dict[str, str]) -> None:
        self._addresses = addresses
        self._mark = f"end of block {uuid.uuid4()}"
        self.errors = folder / "stderr"
        with self.errors.open("w") as errors:
            self._bash = subprocess.Popen(
                ["bash"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )
        self.run("set -euo pipefail")

    def run(self, text: str) -> str:
        """What it prints. Fails where one of its commands does."""
        stdin, stdout = self._bash.stdin, self._bash.stdout
        assert stdin is not None
        assert stdout is not None
        for here, there in self._addresses.items():
            text = re.sub(rf"(?<!\d){re.escape(here)}(?!\d)", there, text)
        stdin.write(f"{text}\necho; echo '{self._mark}'\n")
        stdin.flush()
        printed: list[str] = []
        for line in stdout:
            if line.strip() == self._mark:
                return "".join(printed).strip()
            printed.append(line)
        raise AssertionError(f"failed:\n{text}\n{''.join(printed)}\n{self.errors.read_text()[-3000:]}")

    def processes(self) -> list[int]:
        return [int(pid) for pid in self.run("jobs -p").split()]

    def close(self) -> None:
        """Ends bash and whatever a failed block left running."""
        for pid in self.processes() if self._bash.poll() is None else []:
            subprocess.run(["kill", "-KILL", str(pid)], check=False)
        with self._bash:
            pass  # its end of file is what ends it


@pytest.fixture
def shell(kafka_servers: str, postgres_url: str, tmp_path: Path) -> Iterator[Shell]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")  # the README's database is a new one
        connection.execute("CREATE SCHEMA public")
    (tmp_path / ".venv").symlink_to(PROGRAM.parents[1])
    ports = {port: str(free_port()) for port in PORTS}
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    environment |= {variable: ports[port] for port, variable in PORTS.items()}
    # The broker is shared by all tests.
    environment |= {"ZENSTEP_TOPIC_PREFIX": f"readme{uuid.uuid4().hex}", "ZENSTEP_GROUP": uuid.uuid4().hex}
    opened = Shell(tmp_path, environment, ports | {KAFKA: f"kafka://{kafka_servers}", POSTGRES: postgres_url})
    yield opened
    opened.close()


def test_every_block_is_of_a_kind_that_is_run() -> None:
    for block in blocks():
        where = f"README.md:{block.line}"
        assert block.language in ("sh", "js", "text"), f"{where}: nobody knows how to run this block"
        if block.language == "sh" and not is_make(block):
            words = set(re.findall(r"[\w-]+", block.text))
            assert not words & {"make", "docker", "podman", "kubectl", "apt-get"}, f"{where}: this cannot be run here"
        if block.language == "text":
            assert "▶" in block.text, f"{where}: an output block must follow its command at once"
    assert WALK
    assert {"make demo", "make test", "make up", "make smoke", "make down"} <= set(MAKE)


@pytest.mark.parametrize("command", sorted(set(MAKE)))
def test_every_target_of_make_is_there(command: str) -> None:
    program, *arguments = shlex.split(command)
    done = subprocess.run([program, "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(400)
def test_the_walk_through_does_what_it_says(shell: Shell) -> None:
    assert [README.count(address) for address in (KAFKA, POSTGRES)] == [1, 1]
    started: list[int] = []
    for block in WALK:
        deadline = time.monotonic() + COUNTED_SECONDS
        printed = shell.run(block.text)
        # What only reads may be asked again: the worker counts in a moment, not at once.
        reads = re.match(r"curl (?!.* -d )|TOKEN=|zenstep (ledger|audit)", block.text, re.DOTALL) is not None
        while block.output and reads and difference(block.output, printed) and time.monotonic() < deadline:
            time.sleep(0.2)
            printed = shell.run(block.text)
        if block.output:
            problem = difference(block.output, printed)
            assert problem is None, f"README.md:{block.output.line}: {problem}\n{shell.errors.read_text()[-2000:]}"
        started = started or shell.processes()
    assert len(started) == 3
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert "Traceback" not in shell.errors.read_text()


def difference(expected: Block, printed: str) -> str | None:
    """None where the output is what the block says."""
    if expected.language == "json":
        try:
            actual = json.loads(printed)
        except ValueError:
            return f"not JSON: {printed}"
        return None if matches(json.loads(expected.text), actual) else f"printed {printed}"
    pattern = re.escape(expected.text.strip()).replace(re.escape("..."), "[^\n]*")
    return None if re.fullmatch(pattern, printed.replace("\r", "")) else f"printed {printed}"


def matches(expected: Any, actual: Any) -> bool:
    """`"..."` stands for any value; at the end of a list for all that follows."""
    if expected == "...":
        return True
    if isinstance(expected, dict) and isinstance(actual, dict):
        return list(expected) == list(actual) and all(matches(expected[name], actual[name]) for name in expected)
    if isinstance(expected, list) and isinstance(actual, list):
        if expected[-1:] == ["..."]:
            expected, actual = expected[:-1], actual[: len(expected) - 1]
        return len(expected) == len(actual) and all(map(matches, expected, actual))
    return type(expected) is type(actual) and bool(expected == actual)


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": "..."}, {"a": [1]}, True),
        ({"a": "..."}, {}, False),
        ([1, "..."], [1, 2, 3], True),
        ([1, "..."], [2, 2, 3], False),
        ([1, "..."], [], False),
        ([], [1], False),
    ],
)
def test_an_output_is_compared_value_by_value(expected: Any, actual: Any, same: bool) -> None:
    assert matches(expected, actual) is same


def test_the_script_for_a_page_can_be_parsed(tmp_path: Path) -> None:
    scripts = [block for block in blocks() if block.language == "js"]
    assert scripts
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    for script in scripts:
        file = tmp_path / "page.mjs"
        file.write_text(script.text)
        done = subprocess.run([node, "--check", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"README.md:{script.line}: {done.stderr}"


def test_the_table_of_settings_is_current() -> None:
    table = README.partition("<!-- settings -->\n")[2].partition("<!-- /settings -->")[0]
    assert table.strip() == settings.markdown(), "put the output of `zenstep settings` between the two markers"


def test_ports_and_numbers_are_the_programs_own() -> None:
    fields = {field.name: field for field in dataclasses.fields(settings.Settings)}
    for port, variable in PORTS.items():
        assert str(fields[variable.removeprefix("ZENSTEP_").lower()].default) == port
        assert re.search(rf"^\| `zenstep \w+` \|.*\b{port}\b", README, re.MULTILINE), port
    (events,) = (option.default for option in demo.params if option.name == "events")
    assert f"plays {events:,} events" in README


def test_the_table_of_folders_is_whole() -> None:
    rows = re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(rows) == sorted([*packages["packages"], "bench", "chaos", "deploy", "tests"])
    assert all((ROOT / folder).is_dir() for folder in rows)


def test_every_link_and_file_named_is_there() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    files = re.findall(r"`([\w./-]+\.(?:py|yaml|lock|md))`", README)
    assert links
    for name in links + files:
        assert (ROOT / name).exists(), name


def test_every_command_line_that_prose_names_is_there() -> None:
    from cli.main import main

    for name in re.findall(r"`zenstep (\w+)", README):
        assert name in main.commands, name
