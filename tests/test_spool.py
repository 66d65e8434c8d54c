"""The spool in every situation that a disk, a crash or an operator can bring it into."""

import errno
import json
import threading
from pathlib import Path

import pytest

from backends.spool import Entry, Spool, SpoolError, SpoolFull, SpoolInUse
from tests.disks import Call, Disk
from tests.spools import BROKEN, FULL, Opened, append, entry, forget_all, segments, unread


class TestTheQueue:
    def test_is_read_in_order_and_leaves_no_file_behind(self, opened: Opened, disk: Disk, small_segments: None) -> None:
        spool = opened()
        append(spool, "a", "b")
        append(spool, "c")
        assert forget_all(spool) == ["a", "b", "c"]
        assert disk.names() == ["cursor"]

    def test_keeps_every_field(self, opened: Opened) -> None:
        written = Entry("zenstep.events", "ø-ganisation", 1_700_000_000_123, 50, '{"a":"ø"}'.encode())
        opened().append([written])
        assert opened().read()[0] == [written]

    def test_gives_again_what_was_not_forgotten(self, opened: Opened) -> None:
        append(opened(), "a")
        spool = opened()
        assert unread(spool) == unread(spool) == ["a"]
        assert unread(opened()) == ["a"]

    def test_does_not_give_again_what_was_forgotten(self, opened: Opened) -> None:
        spool = opened()
        append(spool, "a")
        entries, those = spool.read()
        append(spool, "b")
        spool.forget(those, entries)
        assert forget_all(opened()) == ["b"]
        assert forget_all(opened()) == []

    def test_says_what_is_in_it_after_a_start_too(self, opened: Opened, folder: Path) -> None:
        spool = opened()
        spool.append([entry("a", at=1000, events=2), entry("b", at=2000, events=3)])
        entries, those = spool.read()
        spool.append([entry("c", at=3000, events=5)])
        size = segments(folder)[0].stat().st_size
        assert spool.status() == (3, 10, size, 1000, 0)
        spool.forget(those, entries)
        assert spool.status() == (1, 5, size, 3000, 0)
        assert opened().status() == (1, 5, size, 3000, 0)
        forget_all(opened())
        assert opened().status() == (0, 0, 0, None, 0)

    def test_takes_a_line_larger_than_a_segment_but_none_that_it_could_not_read(self, opened: Opened) -> None:
        spool = opened()
        spool.append([Entry("t", "o", 1, 1, bytes(6 * 1024**2)), entry("b")])
        with pytest.raises(SpoolError, match="too large"):
            spool.append([entry("c"), Entry("t", "o", 1, 1, bytes(64 * 1024**2))])
        assert [len(one.line) for one in spool.read()[0]] == [6 * 1024**2, 1]

    def test_nothing_is_appended_by_an_empty_group(self, opened: Opened, disk: Disk) -> None:
        opened().append([])
        assert disk.names() == []

    def test_forgotten_twice_counts_once(self, opened: Opened) -> None:
        """As a flush that is cancelled and the one at the end of the process may do it."""
        spool = opened()
        append(spool, "a")
        one, those_of_one = spool.read()
        append(spool, "b")
        other, those_of_other = spool.read()
        spool.forget(those_of_one, one)
        spool.forget(those_of_other, other)
        assert spool.status().entries == 1
        assert forget_all(spool) == ["b"]
        assert spool.status() == (0, 0, 0, None, 0)


class TestAFolder:
    def test_is_one_process_alone_to_use(self, opened: Opened, folder: Path) -> None:
        spool = opened()
        with pytest.raises(SpoolInUse, match="in use by another process"):
            Spool(folder, 10**9, 10**9)
        append(spool, "a")
        spool.close()
        spool.close()
        assert unread(opened()) == ["a"]

    def test_is_left_alone_after_closing(self, opened: Opened, disk: Disk) -> None:
        spool = opened()
        append(spool, "a")
        entries, those = spool.read()
        spool.close()
        names = disk.names()
        spool.forget(those, entries)
        for use in (lambda: append(spool, "b"), spool.read):
            with pytest.raises(SpoolError, match="closed"):
                use()
        assert spool.problem() == "the spool is closed"
        assert disk.names() == names
        assert forget_all(opened()) == ["a"]

    def test_that_cannot_be_one_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(SpoolError, match=f"cannot open the spool {tmp_path}/file: Not a directory"):
            Spool(tmp_path / "file", 10**9, 10**9)
        with pytest.raises(SpoolError, match="Not a directory"):
            Spool(tmp_path / "file" / "below", 10**9, 10**9)

    def test_is_made_with_those_above_it_so_that_a_power_cut_leaves_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = Disk(monkeypatch, tmp_path)
        Spool(tmp_path / "a" / "b", 10**9, 10**9).close()
        made = [Call("mkdir", "a"), Call("fsync", "."), Call("mkdir", "a/b"), Call("fsync", "a")]
        assert disk.calls[:4] == made

    def test_that_is_no_disk_is_an_error(self, opened: Opened, disk: Disk) -> None:
        disk.fail(OSError(errno.EROFS, "Read-only file system"), "mkdir")
        with pytest.raises(SpoolError, match="Read-only file system"):
            opened()
        assert unread(opened()) == []


class TestTheBounds:
    def test_bytes(self, opened: Opened) -> None:
        spool = opened(max_bytes=100)
        append(spool, "a" * 50)
        with pytest.raises(SpoolFull, match="the spool is full"):
            append(spool, "b")
        assert spool.problem() == "the spool is full"
        assert forget_all(spool) == ["a" * 50]
        append(spool, "b")
        assert unread(spool) == ["b"]

    def test_age(self, opened: Opened) -> None:
        now = 60.0
        spool = opened(max_age=60, clock=lambda: now)
        spool.append([entry("a", at=0)])
        spool.append([entry("b", at=60_000)])
        now = 60.001
        with pytest.raises(SpoolFull, match="waited too long"):
            append(spool, "c")
        assert spool.problem() == "what is spooled has waited too long"
        assert forget_all(spool) == ["a", "b"]
        append(spool, "c")
        assert spool.problem() is None

    def test_what_is_read_to_its_end_while_an_append_is_refused_takes_no_room(self, opened: Opened) -> None:
        """Else it would stay, nobody would forget it again, and the spool would be full with nothing in it."""
        now, at_append = 0.0, False

        def clock() -> float:
            if at_append:  # another thread flushes, while this one holds what is appended to
                flushing = threading.Thread(target=forget_all, args=[spool])
                flushing.start()
                flushing.join()
            return now

        spool = opened(max_bytes=150, max_age=1, clock=clock)
        spool.append([entry("a" * 50, at=0)])
        now, at_append = 2.0, True
        with pytest.raises(SpoolFull):
            append(spool, "b")
        at_append = False
        assert spool.status().entries == 0
        append(spool, "c" * 50)
        assert unread(spool) == ["c" * 50]


class TestADiskThatFails:
    @pytest.mark.parametrize("call", ["open", "fsync", "write", "fdatasync"])
    @pytest.mark.parametrize(("error", "kind"), [(FULL, SpoolFull), (BROKEN, SpoolError)])
    def test_takes_nothing_says_so_and_is_used_again_when_it_works(
        self, opened: Opened, disk: Disk, call: str, error: OSError, kind: type[SpoolError]
    ) -> None:
        spool = opened()
        disk.fail(error, call)
        with pytest.raises(SpoolError, match=str(error.strerror)) as raised:
            append(spool, "a", "b")
        assert raised.type is kind
        assert disk.names() == []
        disk.fail(error, "fdatasync")
        assert spool.problem() == error.strerror
        assert spool.problem() is None
        append(spool, "c")
        assert forget_all(opened()) == ["c"]

    @pytest.mark.parametrize("call", ["write", "fdatasync"])
    def test_keeps_what_was_promised_before(self, opened: Opened, disk: Disk, folder: Path, call: str) -> None:
        spool = opened()
        append(spool, "a")
        disk.fail(BROKEN, call)
        with pytest.raises(SpoolError):
            append(spool, "b")
        append(spool, "c")
        assert len(segments(folder)) == 2  # what an fsync has failed for is not fsynced again
        assert spool.status().entries == 2
        assert forget_all(opened()) == ["a", "c"]

    def test_may_not_even_cut_what_failed(self, opened: Opened, disk: Disk) -> None:
        spool = opened()
        append(spool, "a")
        disk.fail(BROKEN, "fdatasync", "ftruncate")
        with pytest.raises(SpoolError):
            append(spool, "tried")
        append(spool, "b")
        assert unread(spool) == ["a"]
        assert opened().status().entries == 3
        assert forget_all(opened()) == ["a", "tried", "b"]

    def test_costs_no_descriptors(self, opened: Opened, disk: Disk) -> None:
        spool = opened()
        append(spool, "a")
        forget_all(spool)
        before = len(list(Path("/proc/self/fd").iterdir()))
        for call in ["fsync", "write", "fdatasync", "open"] * 5:
            disk.fail(BROKEN, call)
            with pytest.raises(SpoolError):
                append(spool, "a")
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    def test_an_append_that_is_interrupted_moves_none_that_come_after(self, opened: Opened, disk: Disk) -> None:
        spool = opened()
        append(spool, "a")
        disk.fail(KeyboardInterrupt(), "write")
        with pytest.raises(KeyboardInterrupt):
            append(spool, "b" * 100)
        append(spool, "c")
        assert forget_all(opened()) == ["a", "c"]

    @pytest.mark.parametrize("call", ["replace", "unlink"])
    def test_forgets_as_well_as_it_can(self, opened: Opened, disk: Disk, call: str) -> None:
        """At worst it is read again after a start, and never is anything else taken for it."""
        spool = opened()
        append(spool, "a")
        disk.fail(BROKEN, call)
        assert forget_all(spool) == ["a"]
        assert spool.status() == (0, 0, 0, None, 0)
        spool = opened()
        append(spool, "b")
        assert forget_all(opened()) == ["b"]

    def test_a_segment_that_cannot_be_read_is_an_error_and_is_still_there(self, opened: Opened, folder: Path) -> None:
        spool = opened()
        append(spool, "a")
        (segment,) = segments(folder)
        aside = segment.rename(folder / "elsewhere")
        with pytest.raises(SpoolError, match="cannot read the spool"):
            spool.read()
        aside.rename(segment)
        assert forget_all(spool) == ["a"]

    def test_a_line_is_on_the_disk_before_it_is_promised(self, opened: Opened, disk: Disk) -> None:
        spool = opened()
        disk.calls.clear()
        append(spool, "a")
        file = "000000000001.segment"
        assert disk.calls == [Call("open", file), Call("fsync", "."), Call("write", file), Call("fdatasync", file)]
        disk.calls.clear()
        append(spool, "b")
        assert disk.calls == [Call("write", file), Call("fdatasync", file)]


class TestALineSetAside:
    def test_is_on_the_disk_and_in_no_half_line(self, opened: Opened, disk: Disk, folder: Path) -> None:
        spool = opened()
        spool.set_aside(entry('{"a":1}'))
        disk.fail(FULL, "write")
        with pytest.raises(SpoolError, match="No space left"):
            spool.set_aside(entry('{"a":2}'))
        file = folder / "set-aside.ndjson"
        with file.open("a") as half:
            half.write('{"a":')
        disk.calls.clear()
        spool.set_aside(entry('{"a":3}'))
        assert file.read_text() == '{"a":1}\n{"a":\n{"a":3}\n'
        assert [call.name for call in disk.calls] == ["write", "fdatasync", "fsync"]
        assert json.loads(file.read_text().splitlines()[-1]) == {"a": 3}
