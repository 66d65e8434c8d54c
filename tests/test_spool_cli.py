"""`zenstep spool`: what an operator sees of a stopped edge's spool, and puts into the log."""

import os
import signal
import subprocess
from itertools import chain
from pathlib import Path

import pytest

from backends.log import TopicPartition, open_reader
from backends.spool import Entry, Spool
from schemas.ids import partition_of
from tests.commands import PROGRAM, Zenstep
from tests.edges import locked
from tests.patience import impatience
from tests.servers.ports import free_port
from tests.spools import append
from tests.working import until

TOPIC = "zenstep.events"
PARTITIONS = 12
ORGANISATIONS = ["acorn", "birch", "cedar"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def zenstep(tmp_path: Path, folder: Path) -> Zenstep:
    """On a store and a log of its own, with a spool."""
    command = Zenstep(f"sqlite:///{tmp_path}/store.db", tmp_path)
    command.environment |= {"ZENSTEP_SPOOL_PATH": str(folder), "ZENSTEP_PARTITIONS": str(PARTITIONS)}
    command("migrate")
    command("topics", "create")
    return command


def spooled(folder: Path, *entries: Entry) -> list[bytes]:
    """What an edge left, and its lines."""
    spool = Spool(folder, 10**9, 10**9)
    for entry in entries:
        spool.append([entry])
    spool.close()
    return [entry.line for entry in entries]


def line(number: int, events: int = 1) -> Entry:
    return Entry(TOPIC, ORGANISATIONS[number % 3], 1_700_000_000_000 + number, events, b'{"line":%d}' % number)


def in_log(zenstep: Zenstep) -> dict[int, list[bytes]]:
    """The lines of the events' topic by partition."""
    reader = open_reader(zenstep.environment["ZENSTEP_LOG_URL"])
    partitions = {
        number: reader.read(TopicPartition(TOPIC, number), 0, 10_000) for number in range(reader.partitions(TOPIC))
    }
    reader.close()
    return {
        number: [one for record in records for one in record.value.split(b"\n")]
        for number, records in partitions.items()
        if records
    }


class TestStatus:
    def test_shows_what_is_in_it(self, zenstep: Zenstep, folder: Path) -> None:
        spooled(folder, line(0, events=2), line(1, events=3))
        size = (folder / "000000000001.segment").stat().st_size
        assert zenstep.json("spool", "status") == {
            "path": str(folder),
            "entries": 2,
            "events": 5,
            "bytes": size,
            "oldest": "2023-11-14T22:13:20Z",
            "damaged": 0,
            "set_aside": None,
            "damaged_files": [],
        }
        text = " ".join(zenstep("spool", "status").split())
        assert text == f"entries 2 events 5 bytes {size} damaged 0 oldest 2023-11-14T22:13:20Z"

    def test_changes_nothing(self, zenstep: Zenstep, folder: Path) -> None:
        spooled(folder, line(0))
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        zenstep("spool", "status")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_tells_damage_and_where_it_is_kept(self, zenstep: Zenstep, folder: Path) -> None:
        spooled(folder, line(0), line(1))
        segment = folder / "000000000001.segment"
        content = bytearray(segment.read_bytes())
        content[20] ^= 1
        segment.write_bytes(content)
        assert zenstep.json("spool", "status")["damaged"] == len(content) // 2
        zenstep("spool", "flush")
        assert zenstep.json("spool", "status")["damaged_files"] == [f"{segment}.damaged"]
        assert f"What could not be read is kept in {segment}.damaged." in zenstep("spool", "status")

    def test_of_an_empty_one(self, zenstep: Zenstep, folder: Path) -> None:
        spooled(folder)
        status = zenstep.json("spool", "status")
        assert (status["entries"], status["bytes"], status["oldest"]) == (0, 0, None)
        assert zenstep("spool", "status").split()[-1] == "-"

    def test_of_another_folder(self, zenstep: Zenstep, tmp_path: Path) -> None:
        spooled(tmp_path / "other", line(0))
        assert zenstep.json("spool", "status", "--path", str(tmp_path / "other"))["entries"] == 1


@pytest.mark.parametrize("command", ["status", "flush"])
class TestWhatAUserMends:
    def test_an_edge_that_uses_it(self, zenstep: Zenstep, folder: Path, command: str) -> None:
        zenstep.environment["ZENSTEP_EDGE_ADMIN_PORT"] = "9871"
        spool = Spool(folder, 10**9, 10**9)
        append(spool, "a")
        assert zenstep.refuses("spool", command) == (
            f"the spool {folder} is in use by an edge: its numbers are zenstep_spool_* at http://127.0.0.1:9871/metrics"
        )
        assert spool.status().entries == 1
        spool.close()

    def test_a_folder_that_is_none(self, zenstep: Zenstep, folder: Path, command: str) -> None:
        assert zenstep.refuses("spool", command) == f"there is no spool in {folder}"
        assert not folder.exists()
        folder.mkdir()
        assert zenstep.refuses("spool", command) == f"there is no spool in {folder}"
        assert list(folder.iterdir()) == []

    def test_no_folder(self, zenstep: Zenstep, command: str) -> None:
        del zenstep.environment["ZENSTEP_SPOOL_PATH"]
        assert zenstep.refuses("spool", command) == "name the spool's folder with --path, or in ZENSTEP_SPOOL_PATH"


class TestFlush:
    def test_puts_everything_into_the_log_in_order(self, zenstep: Zenstep, folder: Path) -> None:
        entries = [line(number) for number in range(300)]
        spooled(folder, *entries)
        assert zenstep("spool", "flush") == "300 events in 300 lines put into the log.\n"
        expected: dict[int, list[bytes]] = {}
        found = in_log(zenstep)
        for entry in entries:
            expected.setdefault(partition_of(entry.organisation, PARTITIONS), []).append(entry.line)
        assert found == expected
        assert zenstep.json("spool", "status")["entries"] == 0
        assert zenstep.json("spool", "flush")["flushed"] == {"entries": 0, "events": 0}
        assert in_log(zenstep) == found

    def test_says_what_is_left_where_the_log_is_away_and_goes_on_later(self, zenstep: Zenstep, folder: Path) -> None:
        spooled(folder, line(0, events=2), line(1))
        there = zenstep.environment["ZENSTEP_LOG_URL"]
        zenstep.environment["ZENSTEP_LOG_URL"] = f"kafka://127.0.0.1:{free_port()}"
        with impatience():
            result = zenstep.run("spool", "flush")
        assert result.exit_code == 1
        assert result.stdout == "0 events in 0 lines put into the log.\n"
        assert result.stderr.startswith(f"Error: 3 events in 2 lines left in {folder}: the log does not answer: ")
        assert len(result.stderr.splitlines()) == 1
        zenstep.environment["ZENSTEP_LOG_URL"] = there
        assert zenstep.json("spool", "flush")["flushed"] == {"entries": 2, "events": 3}
        assert sorted(chain(*in_log(zenstep).values())) == [b'{"line":0}', b'{"line":1}']

    def test_sets_a_line_that_is_too_large_aside_and_names_the_file(self, zenstep: Zenstep, folder: Path) -> None:
        large = Entry(TOPIC, "acorn", 1, 7, b'{"large":"' + b"x" * 2 * 1024**2 + b'"}')
        spooled(folder, line(0), large, line(2))
        assert zenstep("spool", "flush").splitlines() == [
            "2 events in 2 lines put into the log.",
            f"7 events in 1 lines too large for the topic, set aside in {folder}/set-aside.ndjson.",
        ]
        assert sorted(chain(*in_log(zenstep).values())) == [b'{"line":0}', b'{"line":2}']
        assert (folder / "set-aside.ndjson").read_bytes() == large.line + b"\n"
        assert zenstep.json("spool", "status")["set_aside"] == f"{folder}/set-aside.ndjson"

    def test_tells_the_audit(self, zenstep: Zenstep, folder: Path) -> None:
        organisation = zenstep.organisation()
        spooled(folder, Entry(TOPIC, organisation, 1, 3, b"{}"))
        zenstep("spool", "flush")
        assert '"flushed"' in zenstep.run("audit", "--wait", "0", "--json").stdout

    def test_that_is_stopped_keeps_what_is_left(self, zenstep: Zenstep, folder: Path) -> None:
        """The log does not answer, and the operator does not wait."""
        spooled(folder, line(0))
        log = Path(zenstep.environment["ZENSTEP_LOG_URL"].removeprefix("sqlite:///"))
        with locked(log):
            environment = os.environ | zenstep.environment
            process = subprocess.Popen([PROGRAM, "spool", "flush"], env=environment, stdout=subprocess.DEVNULL)
            until(lambda: "is in use" in zenstep.run("spool", "status").stderr)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) != 0
        assert zenstep.json("spool", "flush")["flushed"] == {"entries": 1, "events": 1}
