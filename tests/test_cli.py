"""The commands of administration on both stores: what they do, what they print, and what never crosses."""

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import sqlalchemy as sa

from backends.store.catalog import Catalog
from backends.store.counting import Counting
from backends.store.engine import open_engine
from cli.main import main
from schemas import tables as t
from schemas.ids import key_digest
from tests.commands import PROGRAM, Zenstep

FLOW = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
STEPS = ("aa000000-0000-4000-8000-000000000001", "aa000000-0000-4000-8000-000000000002")
SECRET = "a-secret-of-at-least-thirty-two-characters"


@pytest.fixture
def zenstep(store_url: str, tmp_path: Path) -> Zenstep:
    return Zenstep(store_url, tmp_path)


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def flow_file(name: str = "Welcome tour", steps: int = 2, **more: Any) -> dict[str, Any]:
    named = [{"id": step, "name": f"Step {n}"} for n, step in enumerate(STEPS[:steps], 1)]
    return {"id": FLOW, "name": name, "steps": named, **more}


def test_migrating_a_second_time_changes_nothing(zenstep: Zenstep, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        for name in ("alembic_version", *reversed([table.name for table in t.metadata.sorted_tables])):
            connection.execute(sa.text(f"DROP TABLE {name}"))
    assert zenstep.refuses("org", "list") == "the store has no tables yet: run `zenstep migrate`"
    assert zenstep("migrate") == "The store's tables are those of this release.\n"
    organisation = zenstep.organisation()
    assert zenstep.json("migrate") == {"migrated": True}
    assert [row["organisation_id"] for row in zenstep.json("org", "list")["organisations"]] == [organisation]


def test_without_tables_each_command_says_what_to_run(tmp_path: Path) -> None:
    zenstep = Zenstep(f"sqlite:///{tmp_path}/new/store.db", tmp_path)
    one, flow = str(uuid.uuid4()), zenstep.file(flow_file())
    for command in (
        ("org", "create", "Acorn"),
        ("org", "list"),
        ("key", "create", "--org", one),
        ("key", "list", "--org", one),
        ("key", "revoke", "k" * 32),
        ("member", "add", "--org", one, "--user", one),
        ("member", "remove", "--org", one, "--user", one),
        ("member", "list", "--org", one),
        ("flow", "import", flow, "--org", one),
        ("flow", "publish", FLOW, "--org", one),
        ("flow", "list", "--org", one),
        ("ledger",),
    ):
        assert zenstep.refuses(*command) == "the store has no tables yet: run `zenstep migrate`", command


def test_organisations_are_listed_as_they_were_made(zenstep: Zenstep) -> None:
    assert zenstep("org", "list") == "There are no organisations yet.\n"
    acorn = zenstep.organisation("Acorn")
    birch = str(uuid.uuid4())
    assert zenstep("org", "create", "Birch Ltd ☂", "--id", birch.upper()) == f"{birch}  Birch Ltd ☂\n"
    listed = zenstep.json("org", "list")["organisations"]
    assert [(row["organisation_id"], row["name"]) for row in listed] == [(acorn, "Acorn"), (birch, "Birch Ltd ☂")]
    lines = zenstep("org", "list").splitlines()
    assert [line.split("  ")[0] for line in lines] == [acorn, birch]
    assert re.search(r"  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  Birch", lines[1])


def test_an_organisation_id_is_taken_once(zenstep: Zenstep) -> None:
    acorn = zenstep.organisation("Acorn")
    assert zenstep.refuses("org", "create", "Birch", "--id", acorn) == f"organisation {acorn} exists already"
    assert len(zenstep.json("org", "list")["organisations"]) == 1


def test_a_key_is_printed_once_and_the_store_holds_its_digest_alone(
    zenstep: Zenstep, engine: sa.Engine, tmp_path: Path
) -> None:
    organisation = zenstep.organisation()
    key = zenstep("key", "create", "--org", organisation).strip()
    other = zenstep.json("key", "create", "--org", organisation, "--environment", "staging")
    assert re.fullmatch("[A-Za-z0-9]{32}", key)
    assert (other["organisation_id"], other["environment"]) == (organisation, "staging")
    with engine.connect() as connection:
        kept = "".join(repr(connection.execute(sa.select(table)).all()) for table in t.metadata.sorted_tables)
    kept += "".join(file.read_bytes().decode("latin-1") for file in tmp_path.glob("store.db*"))
    for made in (key, other["key"]):
        assert made not in kept
        assert key_digest(made) in kept
    listed = zenstep("key", "list", "--org", organisation) + zenstep("key", "list", "--org", organisation, "--json")
    assert key not in listed
    assert key_digest(key) not in listed
    assert [
        (row["hint"], row["environment"], row["revoked_at"]) for row in json.loads(listed[listed.index("{") :])["keys"]
    ] == [
        (key[-4:], None, None),
        (other["key"][-4:], "staging", None),
    ]


def test_a_key_is_revoked_whole_or_by_its_end(zenstep: Zenstep, engine: sa.Engine) -> None:
    organisation = zenstep.organisation()
    assert zenstep("key", "list", "--org", organisation) == "The organisation has no keys yet.\n"
    whole, by_end, kept = (zenstep("key", "create", "--org", organisation).strip() for _ in range(3))
    assert zenstep("key", "revoke", whole) == "Revoked.\n"
    assert zenstep.json("key", "revoke", by_end[-4:], "--org", organisation) == {"revoked": True}
    found = [Catalog(engine).find_key(key_digest(key)) is not None for key in (whole, by_end, kept)]
    assert found == [False, False, True]
    revoked = [row["revoked_at"] is not None for row in zenstep.json("key", "list", "--org", organisation)["keys"]]
    assert sorted(revoked) == [False, True, True]
    for again in ((whole,), (by_end[-4:], "--org", organisation), ("x" * 32,), ("-",)):
        assert zenstep.refuses("key", "revoke", *again) == "there is no such key, or it is revoked already"


def test_two_keys_of_one_end_are_told_apart_only_whole(zenstep: Zenstep, engine: sa.Engine) -> None:
    organisation = zenstep.organisation()
    keys = ["A" * 28 + "same", "B" * 28 + "same"]
    with engine.begin() as connection:
        for key in keys:
            row = {"organisation_id": organisation, "key_digest": key_digest(key), "hint": "same", "created_at": 1}
            connection.execute(t.snippet_keys.insert().values(row))
    refusal = zenstep.refuses("key", "revoke", "same", "--org", organisation)
    assert refusal == "2 keys end in same: give the whole key"
    assert all(Catalog(engine).find_key(key_digest(key)) for key in keys)
    zenstep("key", "revoke", keys[0])
    zenstep("key", "revoke", "same", "--org", organisation)
    assert not any(Catalog(engine).find_key(key_digest(key)) for key in keys)


def test_a_key_is_never_revoked_in_another_organisation(zenstep: Zenstep, engine: sa.Engine) -> None:
    acorn, birch = zenstep.organisation("Acorn"), zenstep.organisation("Birch")
    key = zenstep("key", "create", "--org", acorn).strip()
    for given in (key, key[-4:]):
        refusal = zenstep.refuses("key", "revoke", given, "--org", birch)
        assert refusal == "there is no such key, or it is revoked already"
    refusal = zenstep.refuses("key", "revoke", key[-4:])
    assert refusal == "a key given by its last four characters needs its organisation"
    assert Catalog(engine).find_key(key_digest(key)) is not None


def test_members_are_added_listed_and_removed(zenstep: Zenstep, engine: sa.Engine) -> None:
    acorn, birch, user = zenstep.organisation("Acorn"), zenstep.organisation("Birch"), str(uuid.uuid4())
    assert zenstep("member", "list", "--org", acorn) == "The organisation has no members yet.\n"
    for organisation in (acorn, acorn, birch):
        assert zenstep("member", "add", "--org", organisation, "--user", user.upper()) == "Added.\n"
    assert Catalog(engine).memberships(user) == [acorn, birch]
    assert [row["user_id"] for row in zenstep.json("member", "list", "--org", acorn)["members"]] == [user]
    assert zenstep("member", "list", "--org", acorn).startswith(f"{user}  since 20")
    assert zenstep("member", "remove", "--org", acorn, "--user", user) == "Removed.\n"
    assert Catalog(engine).memberships(user) == [birch]
    refusal = zenstep.refuses("member", "remove", "--org", acorn, "--user", user)
    assert refusal == f"user {user} is no member of organisation {acorn}"


def test_a_flow_is_imported_published_and_taken_back(zenstep: Zenstep) -> None:
    organisation = zenstep.organisation()
    assert zenstep("flow", "list", "--org", organisation) == "The organisation has no flows yet.\n"
    content = {"title": "Hi\0\n☂", "deep": [{"a": None}]}
    flow = flow_file(type="checklist", targeting={"path": "/inbox"})
    flow["steps"][1]["content"] = content
    imported = zenstep("flow", "import", zenstep.file(flow), "--org", organisation)
    assert imported == f"{FLOW}  2 steps  Welcome tour\n"
    assert zenstep("flow", "list", "--org", organisation) == f"{FLOW}  draft      2 steps  Welcome tour\n"
    assert zenstep("flow", "publish", FLOW.upper(), "--org", organisation) == "Published.\n"
    assert zenstep("flow", "list", "--org", organisation) == f"{FLOW}  published  2 steps  Welcome tour\n"
    (listed,) = zenstep.json("flow", "list", "--org", organisation)["flows"]
    assert (listed["type"], listed["targeting"]) == ("checklist", {"path": "/inbox"})
    assert [(s["step_id"], s["position"], s["content"]) for s in listed["steps"]] == [
        (STEPS[0], 0, {}),
        (STEPS[1], 1, content),
    ]
    assert zenstep("flow", "publish", FLOW, "--org", organisation, "--off") == "Taken back.\n"
    assert zenstep("flow", "list", "--org", organisation).startswith(f"{FLOW}  draft")


def test_a_list_of_flows_is_imported_in_one_go(zenstep: Zenstep) -> None:
    organisation = zenstep.organisation()
    flows = [flow_file(), flow_file("Second", steps=0) | {"id": str(uuid.uuid4())}]
    result = zenstep.json("flow", "import", zenstep.file(flows), "--org", organisation)
    assert [(flow["flow_id"], flow["steps"]) for flow in result["flows"]] == [(FLOW, 2), (flows[1]["id"], 0)]
    assert [flow["name"] for flow in zenstep.json("flow", "list", "--org", organisation)["flows"]] == [
        "Second",
        "Welcome tour",
    ]
    assert zenstep("flow", "import", zenstep.file([]), "--org", organisation) == "The file holds no flows.\n"


def test_importing_again_keeps_publication_and_counts(zenstep: Zenstep, engine: sa.Engine) -> None:
    organisation = zenstep.organisation()
    zenstep("flow", "import", zenstep.file(flow_file()), "--org", organisation)
    zenstep("flow", "publish", FLOW, "--org", organisation)
    before = Catalog(engine).flow(organisation, FLOW)
    cell = (organisation, FLOW, t.DAY, 0, STEPS[0])
    with Counting(engine).transaction() as counting:
        counting.add(t.counts, {cell: (5, 0, 0, 0, 0, 0)})
    zenstep("flow", "import", zenstep.file(flow_file("Renamed", steps=1)), "--org", organisation)
    after = Catalog(engine).flow(organisation, FLOW)
    assert before is not None
    assert after is not None
    assert (after.name, [step.step_id for step in after.steps]) == ("Renamed", [STEPS[0]])
    assert after.published_at == before.published_at
    with engine.connect() as connection:
        assert connection.execute(sa.select(t.counts.c.views)).scalars().all() == [5]


def test_one_flow_id_in_two_organisations_is_two_flows(zenstep: Zenstep) -> None:
    acorn, birch = zenstep.organisation("Acorn"), zenstep.organisation("Birch")
    zenstep("flow", "import", zenstep.file(flow_file("Theirs")), "--org", acorn)
    zenstep("flow", "publish", FLOW, "--org", acorn)
    refusal = zenstep.refuses("flow", "publish", FLOW, "--org", birch)
    assert refusal == f"organisation {birch} has no flow {FLOW}"
    zenstep("flow", "import", zenstep.file(flow_file("Ours", steps=1)), "--org", birch)
    assert zenstep("flow", "list", "--org", acorn) == f"{FLOW}  published  2 steps  Theirs\n"
    assert zenstep("flow", "list", "--org", birch) == f"{FLOW}  draft      1 steps  Ours\n"
    zenstep("flow", "publish", FLOW, "--org", birch)
    zenstep("flow", "publish", FLOW, "--org", birch, "--off")
    assert zenstep("flow", "list", "--org", acorn) == f"{FLOW}  published  2 steps  Theirs\n"


def test_the_ledger_adds_up_or_says_so(zenstep: Zenstep, engine: sa.Engine) -> None:
    acorn, birch = zenstep.organisation("Acorn"), zenstep.organisation("Birch")
    assert zenstep("ledger") == zenstep("ledger", "--org", birch) == "Nothing has been consumed yet.\n"
    outcomes = {"consumed": 1200, "counted": 1100, "duplicate": 60, "rejected:unknown_flow": 40}
    with Counting(engine).transaction() as counting:
        counting.add(t.ledger, {(acorn, "zenstep.events", 0, name): (n,) for name, n in outcomes.items()})
    assert zenstep.json("ledger") == {"events": outcomes, "adds_up": True}
    assert zenstep("ledger", "--org", acorn).splitlines() == [
        "consumed                            1,200",
        "counted                             1,100",
        "duplicate                              60",
        "rejected:unknown_flow                  40",
        "adds up",
    ]
    with Counting(engine).transaction() as counting:
        counting.add(t.ledger, {(birch, "zenstep.events", 1, "consumed"): (1,)})
    assert zenstep("ledger", "--org", acorn).endswith("\nadds up\n")
    off = zenstep.run("ledger")
    assert (off.exit_code, off.stdout.splitlines()[-1]) == (1, "DOES NOT ADD UP")


def test_topics_are_created_where_they_are_missing(log_url: str, tmp_path: Path) -> None:
    zenstep = Zenstep("sqlite:///unused", tmp_path)
    prefix = f"t{uuid.uuid4().hex}"
    zenstep.environment |= {"ZENSTEP_LOG_URL": log_url, "ZENSTEP_TOPIC_PREFIX": prefix, "ZENSTEP_PARTITIONS": "3"}
    made = zenstep.json("topics", "create")["topics"]
    assert {f"{prefix}.events", f"{prefix}.heartbeats"} <= {topic["topic"] for topic in made}
    assert all(topic["created"] for topic in made)
    assert zenstep("topics", "create") == "".join(f"{topic['topic']}: was there\n" for topic in made)


def test_a_token_has_the_claims_of_a_supabase_session(tmp_path: Path) -> None:
    zenstep = Zenstep("sqlite:///unused", tmp_path)
    zenstep.environment |= {"ZENSTEP_JWT_SECRET": SECRET, "ZENSTEP_JWT_ISSUER": "https://p.supabase.co/auth/v1"}
    user, organisation = str(uuid.uuid4()), str(uuid.uuid4())
    printed = zenstep("token", "--user", user, "--minutes", "5").strip()
    claims = jwt.decode(printed, SECRET, algorithms=["HS256"], audience="authenticated")
    assert claims["exp"] - claims["iat"] == 300
    assert {name: claims.get(name) for name in ("sub", "role", "iss", "app_metadata")} == {
        "sub": user,
        "role": "authenticated",
        "iss": "https://p.supabase.co/auth/v1",
        "app_metadata": None,
    }
    narrowed = zenstep.json("token", "--user", user, "--org", organisation)["token"]
    claims = jwt.decode(narrowed, SECRET, algorithms=["HS256"], audience="authenticated")
    assert claims["app_metadata"] == {"org_id": organisation}


def test_the_settings_are_one_table(tmp_path: Path) -> None:
    lines = Zenstep("sqlite:///unused", tmp_path)("settings").splitlines()
    assert lines[:2] == ["| variable | default | what it is |", "|---|---|---|"]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(row) for row in rows} == {3}
    assert all(row[2].strip().endswith(".") for row in rows[2:])
    assert any(row[0].strip() == "`ZENSTEP_STORE_URL`" for row in rows)


def test_the_installed_program_is_this_command(tmp_path: Path) -> None:
    environment = {"ZENSTEP_STORE_URL": f"sqlite:///{tmp_path}/store.db", "PATH": "/usr/bin:/bin"}

    def zenstep(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False)

    assert zenstep("--version").stdout.startswith("zenstep, version ")
    missing = zenstep("org", "list")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "Error: the store has no tables yet: run `zenstep migrate`\n"
    assert zenstep("migrate").returncode == 0
    made = json.loads(zenstep("org", "create", "Acorn", "--json").stdout)
    assert made["organisation_id"] in zenstep("org", "list").stdout
    helped = zenstep("-h")
    assert helped.returncode == 0
    for command in main.commands:
        assert re.search(rf"^  {command}  +[A-Z].*[^.]\.$", helped.stdout, re.MULTILINE), (
            f"{command}: no whole sentence"
        )
