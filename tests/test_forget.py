"""`zenstep forget`: a planted user is looked for in everything that is kept, before and after."""

import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backends import wiping
from backends.log import Record
from backends.store.engine import open_engine
from backends.store.rebuild import open_beside
from ingest.decode import UserHasher
from schemas import records
from schemas import tables as t
from schemas.small import person_digest
from tests.edges import EVENTS, SECRET, bearer, edge
from tests.installed import Installed
from tests.snapshot import COUNTED, snapshot
from tests.working import until
from tests.worlds import NOW, envelope, event, new_id

USER, OTHER = "planted-user@example.com", "another-user"
BROWSER = "planted-browser é"


def on_kafka(here: Installed) -> bool:
    return here.world.settings.log_url.startswith("kafka:")


def hashed(here: Installed, user: str = USER) -> str:
    return UserHasher(SECRET).hash(here.organisation, user)


def send(here: Installed, user: str = USER) -> None:
    """Everything that a page can say of a user, good and bad, through an edge."""
    flow = here.flow.flow_id
    views = [{"eventType": "view", "flowId": flow, "userId": user, "anonymousId": BROWSER, "name": "kept-name"}]
    lost = [{"eventType": "view", "flowId": here.later.flow_id, "userId": user, "name": "kept-name"}]
    wrong = [{"eventType": "click", "userId": user, "anonymousId": BROWSER, "name": "kept-name"}]
    step = here.flow.steps[0].step_id
    with edge(here.world) as client:
        for path, body, status in (
            (EVENTS, {"events": views}, 202),
            (EVENTS, {"events": lost}, 202),
            (EVENTS, {"events": wrong}, 400),
            (f"/api/v1/flows/{flow}/complete", {"userId": user}, 202),
            (f"/api/v1/flows/{flow}/checklist-progress", {"stepId": step, "userId": user}, 202),
            (f"/api/v1/flows/{flow}/checklist-progress", {"stepId": "bad", "userId": user}, 400),
        ):
            answer = client.post(path, json=body, headers=bearer(here.world.keys[0]))
            assert answer.status_code == status, answer.content
        until(lambda: len(here.lines(here.world.topics.refused)) % 2 == 0)  # noted after their answer


def plant(here: Installed) -> None:
    """Of the user and of another one; and lines that no edge writes any more, or not yet."""
    send(here, OTHER)
    send(here)
    line = records.encode(envelope(here.organisation, event("custom", name="kept-name", user=hashed(here))))
    here.put(line[:-2], line.replace(b'"v":1', b'"v":9'))
    here.count()


def kept(here: Installed, *secrets: str) -> dict[str, int]:
    """In how many rows or records any of these stands, by place; and in how many files."""
    found: dict[str, int] = {}
    ways = [way for secret in secrets for way in (secret.encode(), repr(secret)[1:-1].encode())]

    def look(place: str, value: bytes) -> None:
        if any(way in value for way in ways):
            found[place] = found.get(place, 0) + 1

    with here.engine.connect() as connection:
        for table in t.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                look(str(table.name), b"\n".join(v if isinstance(v, bytes) else str(v).encode() for v in row))
    for topic in here.world.topics.all():
        for record in here.records(topic):
            look(topic.rpartition(".")[2], record.value)
    for url in (here.world.settings.log_url, here.world.settings.store_url):
        if url.startswith("sqlite:"):
            for end in ("", "-wal"):
                file = Path(url.removeprefix("sqlite:///") + end)
                look(f"file {file.name}", file.read_bytes() if file.exists() else b"")
    return found


def traces(here: Installed, user: str = USER) -> dict[str, int]:
    return kept(here, hashed(here, user), person_digest(hashed(here, user), None))


def rows(found: dict[str, int]) -> dict[str, int]:
    """Without files: when SQLite moves rows from the one to the other is its own affair."""
    return {place: n for place, n in found.items() if not place.startswith("file")}


def places(proof: Any) -> dict[str, tuple[int, int, int]]:
    return {
        p["name"].replace(".", " ").split()[-1]: (p["found"], p["removed"], p["remaining"]) for p in proof["places"]
    }


def forget(here: Installed, *more: str) -> Any:
    return here.json("forget", "--org", here.organisation, "--user", USER, *more)


# What goes and what stays


def test_nothing_is_left_of_a_forgotten_user_and_everything_of_the_others(here: Installed) -> None:
    plant(here)
    before, others = traces(here), traces(here, OTHER)
    topics = {"events": 5, "heartbeats": 1, "refused": 2}
    tables = {"checklist_progress": 1, "rejected": 5}
    assert rows(before) == tables | topics
    numbers = {
        table: rows for table, rows in snapshot(here.engine).items() if table in COUNTED - {"checklist_progress"}
    }

    proof = forget(here)

    after = traces(here)
    assert after == (topics if on_kafka(here) else {})
    assert rows(traces(here, OTHER)) == rows(others), "the other one's are where they were"
    assert {table: rows for table, rows in snapshot(here.engine).items() if table in numbers} == numbers
    found = places(proof)
    assert (found["progress"], found["aside"]) == ((1, 1, 0), (5, 5, 0))
    assert proof["remaining"] == 0
    if on_kafka(here):
        assert {one["topic"] for one in proof["kept"]} == set(here.world.topics.all())
        assert all(one["until"] == proof["at"] + 14 * 86_400_000 for one in proof["kept"]), "Kafka's defaults"
    else:
        assert {topic: found[topic] for topic in topics} == {topic: (n, n, 0) for topic, n in topics.items()}
        assert {found["log"], found["store"]} <= {(0, 0, 0), (1, 1, 0)}, "left over in the files, or not"

    again = places(forget(here))
    assert set(again.values()) == {(0, 0, 0)}


def test_of_a_line_the_rest_is_kept_at_its_place(local: Installed) -> None:
    plant(local)

    def of(record: Record) -> tuple[int, int, int, int]:
        return record.partition, record.offset, record.timestamp, record.value.count(b"kept-name")

    before = [(topic, of(record)) for topic in local.world.topics.all() for record in local.records(topic)]
    bodies = [{**row, "body": row["body"].count(b"kept-name")} for row in local.rows(t.rejected)]
    forget(local)
    assert [(topic, of(record)) for topic in local.world.topics.all() for record in local.records(topic)] == before
    assert [{**row, "body": row["body"].count(b"kept-name")} for row in local.rows(t.rejected)] == bodies
    readable = [
        line for line in local.lines() if hashed(local, OTHER) not in line.decode("latin-1") and b"anon" in line
    ]
    assert readable == [], "the browser beside the user is theirs"


def test_a_topic_that_is_read_again_does_not_bring_them_back(here: Installed) -> None:
    plant(here)
    forget(here)
    for topic in here.world.topics.all():
        here("replay", "--topic", topic)
    before = here.ledger()
    here.count()
    assert here.ledger()["rejected:unknown_flow"] == 2 * before["rejected:unknown_flow"], "they were read again"
    stored = {"checklist_progress", "rejected"}
    assert not stored & set(traces(here))
    assert here.run("rebuild").exit_code == 0
    assert not stored & set(traces(here))
    assert stored <= set(traces(here, OTHER))


def test_the_audit_holds_through_a_replay_and_a_forgotten_user(here: Installed) -> None:
    plant(here)
    here.publish(here.later)
    assert here.json("rejected", "replay")["replayed"]["unknown_flow"] == 2
    here.count()
    forget(here)
    with here.worker():
        result = here.run("audit", "--read-log", "--json")
    assert result.exit_code == 0, result.output


def test_who_comes_back_counts_again(here: Installed) -> None:
    plant(here)
    forget(here)
    before = here.ledger()["counted"]
    send(here)
    here.count()
    assert here.ledger()["counted"] == before + 3
    assert {"checklist_progress", "rejected", "events"} <= set(traces(here))
    found = places(forget(here))
    assert (found["progress"], found["aside"]) == ((1, 1, 0), (3, 3, 0))
    assert not {"checklist_progress", "rejected"} & set(traces(here))


def test_a_browser_is_forgotten_by_its_anonymous_id(here: Installed) -> None:
    step = here.flow.steps[0].step_id
    with edge(here.world) as client:
        for path, body in (
            (EVENTS, {"events": [{"eventType": "view", "flowId": here.later.flow_id, "anonymousId": BROWSER}]}),
            (f"/api/v1/flows/{here.flow.flow_id}/checklist-progress", {"stepId": step, "anonymousId": BROWSER}),
        ):
            assert client.post(path, json=body, headers=bearer(here.world.keys[0])).status_code == 202
    here.count()
    secrets = (BROWSER, person_digest(None, BROWSER))
    assert {"checklist_progress", "rejected", "events", "heartbeats"} <= set(kept(here, *secrets))
    proof = here.json("forget", "--org", here.organisation, "--anonymous", BROWSER)
    assert (places(proof)["progress"], places(proof)["aside"]) == ((1, 1, 0), (1, 1, 0))
    assert set(kept(here, *secrets)) == ({"events", "heartbeats"} if on_kafka(here) else set())


# How it is asked, and what it says


def test_a_dry_run_says_what_there_is_and_changes_nothing(here: Installed) -> None:
    plant(here)
    before = traces(here)
    proof = forget(here, "--dry-run")
    assert places(proof)["progress"] == (1, 0, 1)
    assert places(proof)["aside"] == (5, 0, 5)
    assert traces(here) == before
    assert here.rows(t.forgotten) == []


def test_the_id_comes_from_a_file_and_is_nowhere_in_what_is_said(local: Installed, tmp_path: Path) -> None:
    plant(local)
    said = local("forget", "--org", local.organisation, "--user-file", "-", "--dry-run", input=f"{USER}\n")
    file = tmp_path / "user"
    file.write_text(USER)
    said += local("forget", "--org", local.organisation, "--user-file", str(file))
    assert USER not in said and hashed(local) not in said
    lines = [line.split() for line in said.splitlines()]
    assert ["checklist", "progress", "1", "0", "1"] in lines and ["checklist", "progress", "1", "1", "0"] in lines
    assert "Counts of distinct users are sketches" in said
    assert traces(local) == {}


def test_kafka_says_until_when_or_that_nothing_removes_it(here: Installed) -> None:
    said = here("forget", "--org", here.organisation, "--user", USER)
    assert ("Kafka keeps what was received so far until " in said) is on_kafka(here)
    assert "Nothing was found. Is ZENSTEP_USER_HASH_SECRET the one of the edges?" in said


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "give --user, --user-file or --anonymous"),
        (["--user", "a", "--user-file", "-"], "give --user or --user-file"),
        (["--user", ""], "a user id has 1 to 255 characters, none of them a NUL"),
        (["--anonymous", "a" * 129], "an anonymous id has 1 to 128 characters, none of them a NUL"),
        (["--user-file", "-"], "- must have one line, the user id"),
        (["--org", "0" * 8 + "-0000-4000-8000-" + "0" * 12, "--user", "a"], "there is no organisation "),
    ],
)
def test_what_makes_no_sense_is_one_line(local: Installed, options: list[str], problem: str) -> None:
    refused = local.refuses("forget", "--org", local.organisation, *options, input="a\nb\n")
    assert refused.startswith(problem)
    assert local.rows(t.forgotten) == []


def test_without_the_edges_secret_nothing_is_hashed(local: Installed) -> None:
    settings = replace(local.world.settings, user_hash_secret=None)
    local.world = local.world._replace(settings=settings)
    local.variables = {"ZENSTEP_USER_HASH_SECRET": ""}
    refused = local.refuses("forget", "--org", local.organisation, "--user", USER)
    assert "ZENSTEP_USER_HASH_SECRET" in refused


# What cannot be done at once


@pytest.mark.usefixtures("impatient")
def test_a_log_that_is_away_is_known_before_anything_is_removed(local: Installed) -> None:
    plant(local)
    local.variables = {"ZENSTEP_LOG_URL": "kafka://127.0.0.1:1"}
    refused = local.refuses("forget", "--org", local.organisation, "--user", USER)
    assert refused.startswith("the log does not answer: ")
    assert local.rows(t.forgotten) == []
    assert {"checklist_progress", "rejected"} <= set(traces(local))


def test_a_deleted_row_is_not_in_its_file_any_more(tmp_path: Path) -> None:
    path = str(tmp_path / "some.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA secure_delete=OFF")  # some distributions have it on
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [(f"secret {n} " * 20,) for n in range(500)])
        connection.execute("DELETE FROM t WHERE x NOT LIKE 'secret 7 %'")
        assert wiping.occurrences(path, [b"secret 8 "]) > 0, "SQLite leaves it there"
        assert wiping.wipe(path, [b"secret 8 "]) == 0
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    assert wiping.wipe(path, [b"secret 7 ", b"secret 8 "]) == 20, "what is kept is found"


def test_a_mark_on_the_border_of_two_chunks_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    for size in range(1, 12):
        monkeypatch.setattr(wiping, "CHUNK_BYTES", size)
        file.write_bytes(b"..mark....mark.m")
        assert wiping.occurrences(str(file), [b"mark", b"never there"]) == 2, size


def test_what_remains_is_exit_1_and_the_next_run_removes_it(local: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody reads the store as it was before, so its write-ahead log stays."""
    plant(local)
    monkeypatch.setattr(wiping, "BUSY_SECONDS", 0.2)
    engine = open_engine(local.world.settings.store_url)
    with closing(engine.raw_connection()) as reading:
        cursor = reading.cursor()
        cursor.execute("BEGIN DEFERRED")
        cursor.execute("SELECT * FROM rejected").fetchone()
        result = local.run("forget", "--org", local.organisation, "--user", USER, "--json")
        assert result.exit_code == 1
        assert '"remaining": 1' in result.stdout
        cursor.execute("ROLLBACK")
    engine.dispose()
    proof = forget(local)
    assert places(proof)["store"] == (1, 1, 0)
    assert traces(local) == {}


def test_a_rebuild_that_was_begun_is_thrown_away(here: Installed) -> None:
    plant(here)
    url = here.world.settings.store_url
    with closing(open_beside(url)) as beside:
        beside.create({"program": "x"})
    assert places(forget(here, "--dry-run"))["begun"] == (1, 0, 1)
    assert places(forget(here))["begun"] == (1, 1, 0)
    with closing(open_beside(url)) as beside:
        assert beside.conditions() is None


def test_a_line_that_comes_after_the_request_stays_and_the_files_are_not_judged(local: Installed) -> None:
    plant(local)
    future = 4_000_000_000_000
    later = records.encode(envelope(local.organisation, event("custom", name="x", user=hashed(local)), received=future))
    local.put(later)
    proof = forget(local)
    assert proof["came_back"] is True
    assert later in local.lines()
    assert traces(local)["events"] == 1
    assert "log" not in places(proof)


def test_on_a_live_system_nothing_slips_through(here: Installed) -> None:
    """Lines of the user keep coming, all received before the request, while a worker counts and it is forgotten."""
    about: dict[str, Any] = {"v": 1, "org": here.organisation, "received": NOW, "flow": here.flow.flow_id}
    step = here.flow.steps[0].step_id
    stop = threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            lost = envelope(here.organisation, *(event(flow=new_id(), user=hashed(here)) for _ in range(5)))
            here.put(lost, records.Progress(**about, id=new_id(), step=step, user=hashed(here)))

    with here.worker():
        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            until(lambda: here.ledger().get("rejected:unknown_flow", 0) > 20)
            here.run("forget", "--org", here.organisation, "--user", USER)  # some are in the log again by then
            behind = here.ledger()["consumed"]
            until(lambda: here.ledger()["consumed"] > behind + 20)
        finally:
            stop.set()
            thread.join()
        until(here.settled)
    assert not {"checklist_progress", "rejected"} & set(traces(here))
