"""What a start finds after a crash, a power cut or rot: all that was promised and is there, and never a trace."""

from pathlib import Path

import pytest

from backends.spool import Entry, Spool
from backends.spool.frames import encode
from tests.disks import Disk
from tests.spools import BROKEN, Opened, append, entry, forget_all, segments, unread


def frame(name: str) -> int:
    """Its bytes."""
    return len(encode(entry(name)))


def rewrite(file: Path, start: int, content: bytes) -> None:
    """As rot does: where they are, other bytes."""
    with file.open("r+b") as opened:
        opened.seek(start)
        opened.write(content)


def half_read(opened: Opened) -> Spool:
    """`a` is in the log, `b` and `c` are not."""
    spool = opened()
    append(spool, "a")
    entries, those = spool.read()
    append(spool, "b")
    append(spool, "c")
    spool.forget(those, entries)
    return spool


class TestATornTail:
    def test_is_cut_at_every_byte(self, opened: Opened, folder: Path) -> None:
        append(opened(), "a", "b")
        whole = segments(folder)[0].read_bytes()
        for cut in range(frame("a"), len(whole)):
            (folder / "cursor").unlink(missing_ok=True)
            (folder / "000000000001.segment").write_bytes(whole[:cut])
            spool = opened()
            assert spool.status() == (1, 1, frame("a"), 1000, 0), cut
            append(spool, "c")
            assert segments(folder)[0].stat().st_size == frame("a")
            assert forget_all(spool) == ["a", "c"]

    def test_in_an_empty_segment_leaves_nothing(self, opened: Opened, folder: Path, disk: Disk) -> None:
        opened().close()
        for content in (b"", b"\xf5", b"\xf5ZS\x01\0\0"):
            (folder / "000000000007.segment").write_bytes(content)
            assert opened().status() == (0, 0, 0, None, 0)
            assert disk.names() == []

    def test_of_an_earlier_segment_takes_nothing_from_the_next(
        self, opened: Opened, disk: Disk, folder: Path, small_segments: None
    ) -> None:
        spool = opened()
        append(spool, "a", "torn")
        append(spool, "b")
        first = segments(folder)[0]
        first.write_bytes(first.read_bytes()[:-1])
        assert forget_all(opened()) == ["a", "b"]


class TestTheCursor:
    def test_that_is_lost_or_torn_has_everything_read_again(self, opened: Opened, folder: Path) -> None:
        half_read(opened)
        noted = (folder / "cursor").read_bytes()
        for cut in range(len(noted)):
            (folder / "cursor").write_bytes(noted[:cut])
            assert unread(opened()) == ["a", "b", "c"], cut
        (folder / "cursor").unlink()
        assert unread(opened()) == ["a", "b", "c"]

    def test_that_rots_never_skips_what_is_not_in_the_log(self, opened: Opened, folder: Path) -> None:
        """A digit that flips says that a later segment has been read."""
        half_read(opened)
        noted = (folder / "cursor").read_bytes()
        for at in range(len(noted)):
            for bit in range(8):
                rotten = bytearray(noted)
                rotten[at] ^= 1 << bit
                (folder / "cursor").write_bytes(rotten)
                assert unread(opened())[-2:] == ["b", "c"], (at, bit)

    def test_that_is_no_file_is_as_good_as_none(self, opened: Opened, folder: Path) -> None:
        half_read(opened)
        (folder / "cursor").unlink()
        (folder / "cursor").mkdir()
        assert unread(opened()) == ["a", "b", "c"]

    def test_behind_what_a_power_cut_took_skips_nothing(self, opened: Opened, folder: Path) -> None:
        spool = half_read(opened)
        segment = segments(folder)[0]
        segment.write_bytes(segment.read_bytes()[: frame("a") - 1])
        assert opened().status().entries == 0
        append(opened(), "d")
        assert forget_all(opened()) == ["d"]
        assert spool.problem() == "the spool is closed"

    def test_in_the_middle_of_an_entry_skips_that_one_alone(self, opened: Opened, folder: Path) -> None:
        """Where a cut took the end of one that was in the log, and another stands there: it is not invented."""
        half_read(opened)
        segment = segments(folder)[0]
        segment.write_bytes(encode(entry("longer than a")) + encode(entry("d")))
        spool = opened()
        assert spool.status().entries == 1
        assert forget_all(spool) == ["d"]

    def test_that_could_not_be_noted_does_not_stand_in_a_later_segment(
        self, opened: Opened, disk: Disk, small_segments: None
    ) -> None:
        spool = opened()
        append(spool, "a")
        assert forget_all(spool) == ["a"]  # noted
        append(spool, "b")
        disk.fail(BROKEN, "replace")
        assert forget_all(spool) == ["b"]
        for name in ("c", "d", "e"):
            append(opened(), name)
            assert unread(opened()) == [name]
            disk.fail(BROKEN, "replace")
            assert forget_all(opened()) == [name]


class TestDamage:
    def test_in_the_middle_costs_the_entry_it_is_in_and_is_kept_for_people(
        self, opened: Opened, folder: Path, disk: Disk
    ) -> None:
        append(opened(), "a", "bb", "c")
        rewrite(segments(folder)[0], frame("a") + 20, b"rot")
        size, rotten = segments(folder)[0].stat().st_size, segments(folder)[0].read_bytes()
        assert opened().status() == (2, 2, size, 1000, frame("bb"))
        assert opened().status().damaged == frame("bb")
        spool = opened()
        append(spool, "d")
        assert forget_all(spool) == ["a", "c", "d"]
        assert spool.status() == (0, 0, 0, None, frame("bb"))
        assert disk.names() == ["000000000001.segment.damaged", "cursor"]
        assert (folder / "000000000001.segment.damaged").read_bytes() == rotten
        assert opened().status() == (0, 0, 0, None, 0)

    def test_of_the_last_entry_is_told(self, opened: Opened, folder: Path, disk: Disk) -> None:
        """Nothing that a crash leaves looks so."""
        append(opened(), "a", "b")
        rewrite(segments(folder)[0], frame("a") + frame("b") - 1, b"x")
        spool = opened()
        assert spool.status().damaged == frame("b")
        assert forget_all(spool) == ["a"]
        assert disk.names() == ["000000000001.segment.damaged", "cursor"]

    def test_of_a_whole_segment_takes_no_room(
        self, opened: Opened, folder: Path, disk: Disk, small_segments: None
    ) -> None:
        spool = opened()
        append(spool, "a")
        append(spool, "b")
        segments(folder)[0].write_bytes(bytes(100))
        spool = opened()
        assert spool.status() == (1, 1, frame("b"), 1000, 100)
        assert forget_all(spool) == ["b"]
        assert "000000000001.segment.damaged" in disk.names()

    def test_at_the_front_does_not_hide_how_old_the_rest_is(self, opened: Opened, folder: Path) -> None:
        """By its bytes the time would be of the year 2554."""
        opened().append([Entry("t", "o", 1000, 1, b"a"), Entry("t", "o", 2000, 1, b"b")])
        rewrite(segments(folder)[0], 12, b"\xff" * 8)
        assert opened().status().oldest_at == 2000
        rewrite(segments(folder)[0], 0, b"\xff" * 8)
        assert opened().status().oldest_at == 2000

    def test_on_a_disk_that_is_full_does_not_keep_the_edge_from_starting(
        self, opened: Opened, folder: Path, disk: Disk
    ) -> None:
        append(opened(), "a", "b")
        rewrite(segments(folder)[0], 20, b"rot")
        disk.fail(BROKEN, "write")
        assert unread(opened()) == ["b"]

    def test_that_appears_while_it_is_open_leaves_no_entry_counted(self, opened: Opened, folder: Path) -> None:
        spool = opened()
        append(spool, "a", "b", "c")
        rewrite(segments(folder)[0], frame("a") + 20, b"rot")
        entries, those = spool.read()
        assert [one.line for one in entries] == [b"a", b"c"]
        assert spool.status().entries == 3
        spool.forget(those, entries)
        assert spool.status() == (0, 0, 0, None, frame("b"))

    def test_of_all_that_is_left_while_it_is_open_ends_a_flush(self, opened: Opened, folder: Path, disk: Disk) -> None:
        spool = opened()
        append(spool, "a")
        segments(folder)[0].write_bytes(b"")
        assert unread(spool) == []
        assert spool.status() == (0, 0, 0, None, frame("a"))
        append(spool, "b")
        assert forget_all(spool) == ["b"]


@pytest.mark.parametrize("name", ["lost+found", "000000000001.segment.damaged", "notes.txt", "1.segment"])
def test_what_is_not_the_spools_is_left_alone(opened: Opened, folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / name).write_bytes(encode(entry("x")))
    append(opened(), "a")
    assert forget_all(opened()) == ["a"]
    assert (folder / name).read_bytes() == encode(entry("x"))
