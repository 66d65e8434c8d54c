"""`zenstep replay`: lines of a topic or a file are put into a log again, and counted once whatever happens to it."""

import json
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backends.log import open_admin
from cli.long import STOPPED
from schemas import records
from schemas import tables as t
from schemas.ids import partition_of
from schemas.records import Heartbeat
from tests.edges import PARTITIONS
from tests.installed import Installed
from tests.working import until
from tests.worlds import NOW, envelope, event, new_id


def views(here: Installed, number: int) -> list[bytes]:
    lines = (envelope(here.organisation, event(flow=here.flow.flow_id, session=f"s{n}")) for n in range(number))
    return [records.encode(line) for line in lines]


def of_the_other(here: Installed) -> bytes:
    return records.encode(envelope(here.other, event("custom", name="invited")))


def new_topic(here: Installed, partitions: int = 2) -> str:
    name = f"copy-{new_id()}"
    with closing(open_admin(here.world.settings.log_url)) as admin:
        admin.create_topic(name, partitions, 1)
    return name


def file_of(folder: Path, *lines: bytes) -> str:
    file = folder / "lines.ndjson"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(file)


def partition(here: Installed) -> int:
    return partition_of(here.organisation, PARTITIONS)


# From a topic


def test_a_topic_is_copied_line_by_line_to_the_partitions_of_the_other(here: Installed) -> None:
    mine, theirs = views(here, 3), of_the_other(here)
    here.put(b"\n".join(mine[:2]), mine[2])
    here.put(theirs, organisation=here.other)
    copy = new_topic(here, 2)
    done = here.json("replay", "--topic", here.events, "--to-topic", copy)
    assert (done["lines"], done["unreadable"], done["too_large"], done["stopped"]) == (4, 0, 0, False)
    assert sorted(here.lines(copy)) == sorted([*mine, theirs])
    whose = {partition_of(records.decode(line).org, 2) for line in here.lines(copy)}
    assert {record.partition for record in here.records(copy)} == whose
    assert [line for line in here.lines(copy) if line in mine] == mine, "in order"


def test_replayed_into_its_own_topic_nothing_is_counted_twice_and_it_ends(here: Installed) -> None:
    here.put(*views(here, 5))
    before = here.count()
    assert here.json("replay", "--topic", here.events)["lines"] == 5
    assert len(here.lines()) == 10
    assert here.count() == before | {"consumed": 10, "duplicate": 5}


def test_a_store_that_was_lost_is_filled_again_from_another_log(local: Installed, tmp_path: Path) -> None:
    """The other log is older; whose ids are new counts."""
    old = f"sqlite:///{tmp_path}/old.db"
    with closing(open_admin(old)) as admin:
        admin.create_topic("old", 1, 1)
    local.put(*views(local, 4))
    said = local("replay", "--topic", local.events, "--to-log", old, "--to-topic", "old")
    assert said.splitlines()[0] == "4 lines replayed"
    assert local.count()["counted"] == 4


def test_a_range_of_offsets_is_of_one_partition_and_leaves_its_end_out(here: Installed) -> None:
    lines = views(here, 6)
    here.put(*lines)
    copy = new_topic(here)
    p = str(partition(here))
    done = here.json("replay", "--topic", here.events, "--partition", p, "--from", "1", "--to", "4", "--to-topic", copy)
    assert done["ranges"] == [{"partition": int(p), "start": 1, "end": 4, "reached": 4}]
    assert here.lines(copy) == lines[1:4]
    done = here.json("replay", "--topic", here.events, "--partition", p, "--from", "5", "--to", "99", "--dry-run")
    assert done["ranges"] == [{"partition": int(p), "start": 5, "end": 6, "reached": 6}]
    assert (done["lines"], done["dry_run"]) == (1, True)
    assert len(here.lines(copy)) == 3, "a dry run does nothing"
    refused = here.refuses("replay", "--topic", here.events, "--partition", p, "--from", "7", "--dry-run")
    assert refused == f"{here.events}[{p}] has the offsets 0 to 6"


def test_offsets_that_are_missing_do_not_widen_a_range(local: Installed, tmp_path: Path) -> None:
    """As in Kafka, where a transaction's markers have offsets too."""
    lines = views(local, 5)
    local.put(*lines)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("DELETE FROM records WHERE topic = ? AND offset = 1", (local.events,))
    copy, p = new_topic(local), str(partition(local))
    done = local.json("replay", "--topic", local.events, "--partition", p, "--to", "3", "--to-topic", copy)
    assert done["ranges"] == [{"partition": int(p), "start": 0, "end": 3, "reached": 3}]
    assert local.lines(copy) == [lines[0], lines[2]]


def test_a_range_of_times_is_by_when_the_log_took_them(here: Installed) -> None:
    lines = views(here, 2)
    here.put(lines[0])
    [first] = here.records()
    until(lambda: time.time_ns() // 1_000_000 > first.timestamp)
    here.put(lines[1])
    [_, second] = here.records()
    at = _iso(second.timestamp)
    saved = here("replay", "--topic", here.events, "--from", at, "--dry-run")
    assert saved.splitlines()[0] == "1 lines would be replayed"
    assert here.json("replay", "--topic", here.events, "--to", at, "--dry-run")["lines"] == 1
    assert here.json("replay", "--topic", here.events, "--from", "2020-01-01", "--to", at, "--dry-run")["lines"] == 1
    assert here.json("replay", "--topic", here.events, "--from", "2100-01-01", "--dry-run")["lines"] == 0


def _iso(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds")


def test_lines_that_cannot_be_read_are_counted_and_copied_only_where_asked_for(here: Installed) -> None:
    [line] = views(here, 1)
    newer = b'{"kind":"of tomorrow","v":2,"org":"%s"}' % here.organisation.encode()
    torn, no_text = line[:-9], line.replace(b"view", b"vi\xff\xfe")
    here.put(line, torn, no_text, newer)
    copy = new_topic(here)
    done = here.json("replay", "--topic", here.events, "--to-topic", copy)
    assert (done["lines"], done["unreadable"]) == (2, 2)
    assert here.lines(copy) == [line, newer], "a release to come can read it"
    done = here.json("replay", "--topic", here.events, "--to-topic", copy, "--keep-unreadable")
    assert (done["lines"], done["unreadable"]) == (4, 2)
    kept = [record for record in here.records(copy) if record.partition == 0]
    assert {torn, no_text} <= {line for record in kept for _, line in records.lines(record.value)}


def test_a_range_is_saved_in_a_file_and_put_back_from_there(here: Installed, tmp_path: Path) -> None:
    lines = views(here, 3)
    here.put(*lines)
    file = str(tmp_path / "saved.ndjson")
    assert here.json("replay", "--topic", here.events, "--to-file", file)["lines"] == 3
    assert Path(file).read_bytes() == b"".join(line + b"\n" for line in lines)
    assert here.refuses("replay", "--topic", here.events, "--to-file", file) == f"{file}: File exists"
    assert here.json("replay", "--file", file, "--to-topic", here.events)["lines"] == 3
    ledger = here.count()
    assert (ledger["counted"], ledger["duplicate"]) == (3, 3)


def test_a_range_is_written_to_the_output_alone(local: Installed) -> None:
    lines = views(local, 2)
    local.put(*lines)
    result = local.run("replay", "--topic", local.events, "--to-file", "-")
    assert result.stdout_bytes == b"".join(line + b"\n" for line in lines)
    assert result.stderr.startswith("2 lines replayed\n")


# From a file


def test_lines_come_from_the_input(here: Installed) -> None:
    lines = [*views(here, 2), of_the_other(here)]
    text = b"\r\n".join([lines[0], b"", lines[1], b"no line", lines[2]])
    done = here.json("replay", "--file", "-", "--to-topic", here.events, input=text)
    assert (done["lines"], done["unreadable"], done["ranges"]) == (3, 1, [])
    assert sorted(here.lines()) == sorted(lines)
    assert here.count()["counted"] == 3


def test_many_lines_share_records(local: Installed, tmp_path: Path) -> None:
    lines = views(local, 2500)
    assert local.json("replay", "--file", file_of(tmp_path, *lines), "--to-topic", local.events)["lines"] == 2500
    assert local.lines() == lines
    assert len(local.records()) < 50


def test_a_line_that_the_topic_does_not_take_is_counted_and_exit_is_1(local: Installed, tmp_path: Path) -> None:
    [line] = views(local, 1)
    large = records.encode(envelope(local.organisation, event("custom", name="x", url="u"))) + b" " * 2**21
    result = local.run("replay", "--file", file_of(tmp_path, large, line), "--to-topic", local.events, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["too_large"] == 1
    assert local.lines() == [line]


# Killed, interrupted, resumed


def test_killed_it_goes_on_from_its_state_and_nothing_is_lost(here: Installed, tmp_path: Path) -> None:
    lines = views(here, 60)
    here.put(*lines)
    copy = new_topic(here)
    options = ("replay", "--topic", here.events, "--to-topic", copy, "--state", str(tmp_path / "state"))
    replaying = here.start(*options, "--rate", "20")
    until(lambda: len(here.lines(copy)) >= 20)
    replaying.kill()
    replaying.communicate()
    here.put(*views(here, 1))  # after the start, so of no part of it
    done = here.json(*options)
    assert sum(r["end"] - r["start"] for r in done["ranges"]) == 60
    assert 0 < done["lines"] <= 60
    copied = here.lines(copy)
    assert set(copied) == set(lines)
    assert len(copied) <= 60 + 20, "one step at most is done twice"
    assert here.json(*options)["lines"] == 0, "it is done"


def test_interrupted_it_says_what_it_reached(here: Installed, tmp_path: Path) -> None:
    lines = views(here, 40)
    here.put(*lines)
    copy = new_topic(here)
    options = ("replay", "--topic", here.events, "--to-topic", copy, "--state", str(tmp_path / "state"), "--json")
    replaying = here.start(*options, "--rate", "8")
    until(lambda: here.lines(copy))
    replaying.send_signal(signal.SIGINT)
    out, err = replaying.communicate(timeout=60)
    assert (replaying.returncode, err) == (STOPPED, "")
    done = json.loads(out)
    assert done["stopped"] is True
    assert sum(r["reached"] - r["start"] for r in done["ranges"]) == done["lines"] == len(here.lines(copy)) < 40
    assert json.loads(here(*options))["lines"] == 40 - done["lines"]
    assert here.lines(copy) == lines


def test_a_state_of_another_replay_is_refused(local: Installed, tmp_path: Path) -> None:
    local.put(*views(local, 1))
    state = tmp_path / "state"
    options: tuple[str, ...] = ("replay", "--topic", local.events, "--state", str(state))
    local(*options)
    assert local.refuses(*options, "--to-topic", new_topic(local)) == f"{state} is the state of another replay"
    state.write_text("{}")
    assert local.refuses(*options) == f"{state} is not the state of a replay"
    assert len(local.lines()) == 2


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "give --topic or --file"),
        (["--topic", "t", "--file", "f"], "give --topic or --file"),
        (["--file", "f"], "--file goes with --to-topic or --to-file"),
        (["--file", "f", "--from", "1", "--to-topic", "t"], "--partition, --from, --to and --state go with --topic"),
        (["--topic", "t", "--from", "1"], "an offset goes with --partition"),
        (
            ["--topic", "t", "--to-file", "f", "--to-topic", "t"],
            "--to-file goes without --to-log, --to-topic and --state",
        ),
        (["--topic", "nowhere", "--dry-run"], "there is no topic nowhere: run zenstep topics create"),
        (["--topic", "EVENTS", "--partition", "9", "--dry-run"], "EVENTS has the partitions 0 to 3"),
        (["--topic", "EVENTS", "--to-topic", "nowhere"], "there is no topic nowhere: run zenstep topics create"),
        (["--file", "/nowhere", "--to-topic", "EVENTS"], "/nowhere: No such file or directory"),
        (
            ["--topic", "EVENTS", "--to-log", "redis://x"],
            "not a log address: 'redis://x' (kafka://host:port or sqlite:///path)",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(local: Installed, options: list[str], problem: str) -> None:
    given = [option.replace("EVENTS", local.events) for option in options]
    assert local.refuses("replay", *given) == problem.replace("EVENTS", local.events)


def test_small_writes_and_refused_lines_are_lines_too(local: Installed) -> None:
    heartbeat: Any = Heartbeat(v=1, org=local.organisation, received=NOW, id=new_id(), host="app.example.com")
    local.put(heartbeat, topic=local.world.topics.heartbeats)
    local.count()
    assert local.json("replay", "--topic", local.world.topics.heartbeats)["lines"] == 1
    assert local.count()["duplicate"] == 1
    assert len(local.rows(t.heartbeats)) == 1
