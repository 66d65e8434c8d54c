"""A user's mistake is one line that says what to mend: no trace, nothing on standard output, exit code 1 or 2."""

import json
import os
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.commands import PROGRAM, Zenstep

ONE = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
SECRET = "a-secret-of-at-least-thirty-two-characters"
FLOW: dict[str, Any] = {"id": ONE, "name": "Tour", "steps": [{"id": ONE, "name": "Welcome"}]}


@pytest.fixture
def zenstep(store_url: str, tmp_path: Path) -> Zenstep:
    return Zenstep(store_url, tmp_path)


@pytest.fixture
def nowhere(tmp_path: Path) -> Zenstep:
    """Its store and its log are whatever a test says."""
    return Zenstep(f"sqlite:///{tmp_path}/store.db", tmp_path)


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@pytest.mark.parametrize(
    "command",
    [
        ("key", "create"),
        ("key", "list"),
        ("member", "add", "--user", ONE),
        ("member", "remove", "--user", ONE),
        ("member", "list"),
        ("flow", "list"),
        ("ledger",),
    ],
    ids=" ".join,
)
def test_an_unknown_organisation_is_named(zenstep: Zenstep, command: tuple[str, ...]) -> None:
    assert zenstep.refuses(*command, "--org", ONE) == f"there is no organisation {ONE}"


def test_a_flow_is_not_imported_into_an_unknown_organisation(zenstep: Zenstep) -> None:
    refusal = zenstep.refuses("flow", "import", zenstep.file(FLOW), "--org", ONE)
    assert refusal == f"there is no organisation {ONE}"
    assert zenstep.refuses("flow", "publish", ONE, "--org", ONE) == f"organisation {ONE} has no flow {ONE}"


@pytest.mark.parametrize("bad", ["acorn", "", ONE[:-1], ONE.replace("-", ""), ONE + "\n", "' OR 1=1 --"])
@pytest.mark.parametrize(
    "command",
    [
        ("org", "create", "Acorn", "--id"),
        ("key", "create", "--org"),
        ("member", "add", "--org", ONE, "--user"),
        ("token", "--user"),
        ("ledger", "--org"),
    ],
    ids=" ".join,
)
def test_an_id_that_is_no_uuid_is_refused(nowhere: Zenstep, command: tuple[str, ...], bad: str) -> None:
    assert nowhere.refuses(*command, bad).endswith(f"{bad!r} is not a UUID")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "must not be empty"),
        (" \t", "must not be empty"),
        ("x" * 256, "must have at most 255 characters"),
        ("two\nlines", "must be one line of text without control characters"),
        ("two\u2028lines", "must be one line of text without control characters"),
        ("nul\0", "must be one line of text without control characters"),
        ("\x1b[31mred", "must be one line of text without control characters"),
    ],
    ids=["empty", "blank", "long", "newline", "separator", "nul", "escape"],
)
def test_what_cannot_be_a_name_is_refused(zenstep: Zenstep, name: str, problem: str) -> None:
    assert zenstep.refuses("org", "create", name).endswith(f"a name {problem}")
    organisation = zenstep.organisation()
    for what, flow in {
        "name": FLOW | {"name": name},
        "type": FLOW | {"type": name},
        "step's name": FLOW | {"steps": [{"id": ONE, "name": name}]},
    }.items():
        refusal = zenstep.refuses("flow", "import", zenstep.file(flow), "--org", organisation)
        if what == "type" and len(name) > 32:
            assert refusal.endswith("is not a flow file: Expected `str` of length <= 32 - at `$.type`")
        else:
            assert refusal == f"flow {ONE}: its {what} {problem}"
    assert zenstep.json("flow", "list", "--org", organisation) == {"flows": []}


def test_the_longest_name_is_taken_whole(zenstep: Zenstep) -> None:
    name = "👩‍🚀" + "ü" * 252
    organisation = zenstep.organisation(name)
    zenstep("flow", "import", zenstep.file(FLOW | {"name": name, "type": "t" * 32}), "--org", organisation)
    assert zenstep.json("org", "list")["organisations"][0]["name"] == name
    assert zenstep.json("flow", "list", "--org", organisation)["flows"][0]["name"] == name


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "Input data was truncated"),
        ("not JSON", "JSON is malformed"),
        ("7", "Expected `object | array`, got `int`"),
        ("[7]", "Expected `object`, got `int` - at `$[0]`"),
        (json.dumps({"id": ONE, "name": "Tour"}), "Object missing required field `steps`"),
        (json.dumps(FLOW | {"id": "tour"}), "Expected `str` matching regex"),
        (json.dumps(FLOW | {"steps": [{"id": ONE}]}), "Object missing required field `name` - at `$.steps[0]`"),
        (json.dumps(FLOW | {"steps": [{"id": ONE, "name": 1}]}), "Expected `str`, got `int` - at `$.steps[0].name`"),
        (json.dumps(FLOW | {"targeting": []}), "Expected `object`, got `array` - at `$.targeting`"),
        ('{"id": "' + ONE + '", "name": "half \\ud800", "steps": []}', "surrogate pair"),
        (
            '{"id": "' + ONE + '", "name": "T", "steps": [], "targeting": ' + '{"a":' * 9000 + "1" + "}" * 9000 + "}",
            "deep",
        ),
    ],
)
def test_a_file_that_is_no_flow_file_is_refused(zenstep: Zenstep, content: str, problem: str) -> None:
    organisation = zenstep.organisation()
    file = zenstep.file(content)
    refusal = zenstep.refuses("flow", "import", file, "--org", organisation)
    assert refusal.startswith(f"{file} is not a flow file: ")
    assert problem in refusal


def test_bytes_that_are_no_text_are_no_flow_file(nowhere: Zenstep, tmp_path: Path) -> None:
    file = tmp_path / "flow.json"
    file.write_bytes(b'{"id": "' + ONE.encode() + b'", "name": "\xff\xfe", "steps": []}')
    assert "is not a flow file" in nowhere.refuses("flow", "import", str(file), "--org", ONE)


def test_a_file_that_is_not_there_is_named(nowhere: Zenstep, tmp_path: Path) -> None:
    refusal = nowhere.refuses("flow", "import", f"{tmp_path}/gone.json", "--org", ONE)
    assert refusal == f"Invalid value for 'FILE': File '{tmp_path}/gone.json' does not exist."
    assert "is a directory" in nowhere.refuses("flow", "import", str(tmp_path), "--org", ONE)


def test_of_a_file_with_a_repeated_id_nothing_is_imported(zenstep: Zenstep) -> None:
    organisation, other = zenstep.organisation(), str(uuid.uuid4())
    twice = FLOW | {"id": other, "steps": [{"id": ONE, "name": "One"}, {"id": ONE.upper(), "name": "Again"}]}
    refusal = zenstep.refuses("flow", "import", zenstep.file([FLOW, twice]), "--org", organisation)
    assert refusal == f"flow {other} has two steps of the id {ONE}"
    file = zenstep.file([FLOW, FLOW | {"id": ONE.upper()}])
    assert zenstep.refuses("flow", "import", file, "--org", organisation) == f"{file} has two flows of the id {ONE}"
    assert zenstep.json("flow", "list", "--org", organisation) == {"flows": []}


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("postgresql://u:hunter2@127.0.0.1:1/db", "the store does not answer: "),
        ("postgresql://u:hunter2@127.0.0.1:port/db", "not a store address ("),
        ("postgresql://[::1/hunter2", "not a store address ("),
        ("sqlite:///", "not a store address ("),
        ("mysql://u:hunter2@h/db", "ZENSTEP_STORE_URL: must begin with postgresql:// or sqlite:///"),
        ("", "ZENSTEP_STORE_URL: must begin with postgresql:// or sqlite:///"),
        ("sqlite:///{folder}/text/store.db", "{folder}/text: File exists"),
        ("sqlite:///{folder}/text", "the store's file is not a database"),
        ("sqlite:///{folder}", "the store does not answer: unable to open database file"),
    ],
)
def test_a_store_that_cannot_be_had(nowhere: Zenstep, tmp_path: Path, address: str, problem: str) -> None:
    (tmp_path / "text").write_text("This is a text of some length, and not a database.")
    nowhere.environment["ZENSTEP_STORE_URL"] = address.format(folder=tmp_path)
    for command in (("org", "list"), ("migrate",)):
        refusal = nowhere.refuses(*command)
        assert refusal.startswith(problem.format(folder=tmp_path))
        assert "hunter2" not in refusal


def test_a_database_that_is_not_there_or_not_ours_is_told_from_one_that_is_away(
    nowhere: Zenstep, postgres_url: str
) -> None:
    nowhere.environment["ZENSTEP_STORE_URL"] = f"{postgres_url}-gone"
    assert 'gone" does not exist' in nowhere.refuses("org", "list")
    guest = f"guest_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {guest} LOGIN PASSWORD 'hunter2'")
        try:
            host = postgres_url.rpartition("@")[2]
            nowhere.environment["ZENSTEP_STORE_URL"] = f"postgresql://{guest}:hunter2@{host}"
            assert nowhere.refuses("org", "list") == "the store refuses: permission denied for table organisations"
        finally:
            connection.execute(f"DROP ROLE {guest}")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("kafka://127.0.0.1:1", "the log does not answer: "),
        ("kafka://127.0.0.1:port", "not a log address: "),
        ("kafka://a:9092,,b:9092", "not a log address: "),
        ("kafka://", "not a log address: "),
        ("kafka://host:9092/topic", "not a log address: "),
        ("redis://h", "ZENSTEP_LOG_URL: must begin with kafka:// or sqlite:///"),
        ("sqlite:///{folder}/text/log.db", "the log does not answer: cannot open {folder}/text/log.db"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_log_that_cannot_be_had(nowhere: Zenstep, tmp_path: Path, address: str, problem: str) -> None:
    (tmp_path / "text").write_text("not a folder")
    nowhere.environment["ZENSTEP_LOG_URL"] = address.format(folder=tmp_path)
    assert nowhere.refuses("topics", "create").startswith(problem.format(folder=tmp_path))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"PARTITIONS": "0"}, "ZENSTEP_PARTITIONS: must be 1 or more"),
        ({"PARTITIONS": "many"}, "ZENSTEP_PARTITIONS: must be a whole number"),
        ({"LOG_LEVEL": "loud"}, "ZENSTEP_LOG_LEVEL: must be 'debug', 'info', 'warning' or 'error'"),
        ({"JWT_ALGORITHM": "none"}, "ZENSTEP_JWT_ALGORITHM: must be 'HS256', "),
        ({"JWT_SECRET": "hunter2"}, "ZENSTEP_JWT_SECRET: must have at least 32 characters"),
        ({"EDGE_PORT": "80800"}, "ZENSTEP_EDGE_PORT: must be 65535 or less"),
        ({}, "ZENSTEP_JWT_SECRET is not set"),
        ({"JWT_SECRET": ""}, "ZENSTEP_JWT_SECRET: must have at least 32 characters"),
        ({"JWT_SECRET": SECRET, "JWT_ALGORITHM": "RS256"}, "ZENSTEP_JWT_ALGORITHM is RS256: only HS256 tokens"),
    ],
)
def test_a_setting_that_is_wrong_is_named_and_never_repeated(
    nowhere: Zenstep, settings: dict[str, str], problem: str
) -> None:
    nowhere.environment |= {f"ZENSTEP_{name}": value for name, value in settings.items()}
    refusal = nowhere.refuses("token", "--user", ONE)
    assert refusal.startswith(problem)
    assert "hunter2" not in refusal


def test_every_wrong_setting_is_named_at_once(nowhere: Zenstep) -> None:
    nowhere.environment |= {"ZENSTEP_PARTITIONS": "0", "ZENSTEP_LOG_LEVEL": "loud", "ZENSTEP_LOG_URL": "x"}
    refusal = nowhere.refuses("org", "list")
    assert [part.partition(":")[0] for part in refusal.split("; ")] == [
        "ZENSTEP_LOG_URL",
        "ZENSTEP_PARTITIONS",
        "ZENSTEP_LOG_LEVEL",
    ]


@pytest.mark.parametrize("minutes", ["0", "1441", "soon"])
def test_a_token_lives_a_minute_to_a_day(nowhere: Zenstep, minutes: str) -> None:
    assert "Invalid value for '--minutes'" in nowhere.refuses("token", "--user", ONE, "--minutes", minutes)


@pytest.mark.parametrize(("role", "missing"), [("edge", "ZENSTEP_USER_HASH_SECRET"), ("reader", "ZENSTEP_JWT_SECRET")])
def test_a_role_without_its_secret_does_not_start(tmp_path: Path, role: str, missing: str) -> None:
    assert _role(tmp_path, role) == f"Error: {missing} is not set\n"


@pytest.mark.parametrize("setting", ["EDGE_PORT", "EDGE_ADMIN_PORT", "WORKER_ADMIN_PORT", "READER_PORT"])
def test_a_role_whose_port_is_in_use_does_not_start(tmp_path: Path, used_port: int, setting: str) -> None:
    said = _role(tmp_path, setting.partition("_")[0].lower(), **{f"ZENSTEP_{setting}": str(used_port)})
    assert said.splitlines()[-1] == f"Error: cannot listen on 127.0.0.1:{used_port}: the port is in use"
    assert "Traceback" not in said


def _role(folder: Path, role: str, **settings: str) -> str:
    """What a role that cannot start says; with a port of its own it has its secrets too."""
    environment = {
        "PATH": os.environ["PATH"],
        "ZENSTEP_STORE_URL": f"sqlite:///{folder}/store.db",
        "ZENSTEP_LOG_URL": f"sqlite:///{folder}/log.db",
        **{f"ZENSTEP_{name}_PORT": "0" for name in ("EDGE", "EDGE_ADMIN", "WORKER_ADMIN", "READER", "READER_ADMIN")},
        **({"ZENSTEP_USER_HASH_SECRET": SECRET, "ZENSTEP_JWT_SECRET": SECRET} if settings else {}),
        **settings,
    }
    done = subprocess.run([PROGRAM, role], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_a_step_of_another_flow_is_refused_and_no_flow_of_the_file_is_imported(zenstep: Zenstep) -> None:
    organisation, other = zenstep.organisation(), zenstep.organisation("Birch")
    zenstep("flow", "import", zenstep.file(FLOW), "--org", organisation)
    fine, taken = ({**FLOW, "id": str(uuid.uuid4()), "steps": steps} for steps in ([], FLOW["steps"]))
    refusal = zenstep.refuses("flow", "import", zenstep.file([fine, taken]), "--org", organisation)
    assert refusal == f"step {ONE} of flow {taken['id']} is a step of flow {ONE} already"
    assert [flow["flow_id"] for flow in zenstep.json("flow", "list", "--org", organisation)["flows"]] == [ONE]
    zenstep("flow", "import", zenstep.file([FLOW, fine]), "--org", organisation)
    zenstep("flow", "import", zenstep.file(taken), "--org", other)
