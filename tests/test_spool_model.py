"""The spool against sets of numbers: whatever fails, dies or loses power, what was promised is read, in order, and
nothing that was not tried.
"""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import backends.spool.spool as spool_module
from backends.spool import Entry, Range, Spool, SpoolError
from tests.disks import Disk, Killed

ERRORS = st.sampled_from([errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
CALLS = st.lists(
    st.sampled_from(["*", "open", "write", "fdatasync", "fsync", "ftruncate", "truncate", "unlink", "replace"]),
    min_size=1,
    max_size=3,
)
GROUPS = st.lists(st.integers(0, 60), min_size=1, max_size=4)


def entry(number: int, size: int = 0) -> Entry:
    return Entry("topic", "organisation", 1000 + number, number % 3, b"%d " % number + b"x" * size)


def number_of(one: Entry) -> int:
    return int(one.line.split()[0])


class SpoolMachine(RuleBasedStateMachine):
    """Entries have running numbers. Each is in at most one of the four sets, or was never spooled."""

    def __init__(self) -> None:
        super().__init__()
        self.monkeypatch = pytest.MonkeyPatch()
        self.monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 300)
        self.temporary = tempfile.TemporaryDirectory()
        self.disk = Disk(self.monkeypatch, Path(self.temporary.name) / "spool")
        self.number = 0
        self.promised: set[int] = set()  # not forgotten
        self.possible: set[int] = set()  # may be there, may be not
        self.hidden: set[int] = set()  # may be there after a start
        self.gone: set[int] = set()  # may be there after a power cut
        self.spool = self.opened()

    def teardown(self) -> None:
        try:
            self.disk.mend()
            self.drain()
        finally:
            self.spool.close()
            self.monkeypatch.undo()
            self.temporary.cleanup()

    @rule(sizes=GROUPS)
    def append(self, sizes: list[int]) -> None:
        self.spool.append(self.fresh(sizes))
        self.promised |= self.tried

    @rule(sizes=GROUPS, error=ERRORS, calls=CALLS)
    def append_to_a_disk_that_fails(self, sizes: list[int], error: int, calls: list[str]) -> None:
        self.disk.fail(OSError(error, "failed"), *calls)
        try:
            self.spool.append(self.fresh(sizes))
            self.promised |= self.tried
        except SpoolError:
            self.hidden |= self.tried
        self.disk.mend()

    @rule(sizes=GROUPS, calls=st.integers(0, 5))
    def append_until_killed(self, sizes: list[int], calls: int) -> None:
        with self.dies(calls):
            self.spool.append(self.fresh(sizes))
            self.promised |= self.tried
        self.hidden |= self.tried - self.promised
        self.reopen()

    @rule()
    def read_only(self) -> None:
        self.read()

    @rule()
    def read_and_forget(self) -> None:
        numbers, those, entries = self.read()
        if numbers:
            self.spool.forget(those, entries)
            self.forgot(numbers[-1], self.gone)

    @rule(sizes=GROUPS)
    def append_between_read_and_forget(self, sizes: list[int]) -> None:
        numbers, those, entries = self.read()
        self.append(sizes)
        if numbers:
            self.spool.forget(those, entries)
            self.forgot(numbers[-1], self.gone)

    @rule()
    def forget_twice(self) -> None:
        numbers, those, entries = self.read()
        if numbers:
            self.spool.forget(those, entries)
            self.spool.forget(those, entries)
            self.forgot(numbers[-1], self.gone)

    @rule(error=ERRORS, calls=CALLS)
    def forget_on_a_disk_that_fails(self, error: int, calls: list[str]) -> None:
        numbers, those, entries = self.read()
        if numbers:
            self.disk.fail(OSError(error, "failed"), *calls)
            self.spool.forget(those, entries)
            self.forgot(numbers[-1], self.hidden)
            self.disk.mend()

    @rule(calls=st.integers(0, 3))
    def forget_until_killed(self, calls: int) -> None:
        numbers, those, entries = self.read()
        if numbers:
            with self.dies(calls):
                self.spool.forget(those, entries)
            self.forgot(numbers[-1], self.hidden)
            self.reopen()

    @rule()
    def drain(self) -> None:
        while self.read()[0]:
            self.read_and_forget()
        status = self.spool.status()
        assert (status.entries, status.events, status.oldest_at) == (0, 0, None)

    @rule()
    def reopen(self) -> None:
        self.disk.mend()
        self.spool.close()
        self.possible |= self.hidden
        self.hidden = set()
        self.spool = self.opened()

    @rule(calls=st.integers(0, 6))
    def reopen_until_killed(self, calls: int) -> None:
        self.spool.close()
        with self.dies(calls):
            self.opened().close()
        self.reopen()

    @rule(error=ERRORS, calls=CALLS)
    def reopen_on_a_disk_that_fails(self, error: int, calls: list[str]) -> None:
        self.spool.close()
        self.disk.fail(OSError(error, "failed"), *calls)
        try:
            self.opened().close()
        except SpoolError:
            assert self.disk.faulted
        self.reopen()

    @rule(data=st.data())
    def lose_power(self, data: st.DataObject) -> None:
        self.spool.close()
        self.disk.lose_power(
            lambda synced, size: data.draw(st.sampled_from([synced, size]) | st.integers(synced, size)),
            lambda: data.draw(st.booleans()),
        )
        self.hidden |= self.gone
        self.gone = set()
        self.reopen()

    @rule(content=st.none() | st.binary(max_size=20))
    def lose_the_cursor(self, content: bytes | None) -> None:
        self.spool.close()
        cursor = self.disk.folder / "cursor"
        cursor.unlink(missing_ok=True)
        if content is not None:
            cursor.write_bytes(content)
        self.hidden |= self.gone
        self.gone = set()
        self.reopen()

    @invariant()
    def the_counters_are_right(self) -> None:
        status = self.spool.status()
        assert status.damaged == 0
        assert len(self.promised) <= status.entries <= len(self.promised | self.possible)
        if not self.possible:
            events = sum(entry(number).events for number in self.promised)
            oldest = 1000 + min(self.promised) if self.promised else None
            assert (status.events, status.oldest_at) == (events, oldest)
        assert (status.size > 0) == (status.entries > 0)

    def opened(self) -> Spool:
        return Spool(self.disk.folder, 10**6, 10**6, clock=lambda: 0.0)

    def fresh(self, sizes: list[int]) -> list[Entry]:
        first, self.number = self.number, self.number + len(sizes)
        self.tried = set(range(first, self.number))
        return [entry(first + index, size) for index, size in enumerate(sizes)]

    @contextmanager
    def dies(self, calls: int) -> Iterator[None]:
        self.disk.kill(calls)
        with suppress(Killed):
            yield
        self.disk.mend()

    def read(self) -> tuple[list[int], Range, list[Entry]]:
        entries, those = self.spool.read()
        numbers = [number_of(one) for one in entries]
        assert numbers == sorted(set(numbers))
        assert set(numbers) <= self.promised | self.possible
        expected = {number for number in self.promised if not numbers or number <= numbers[-1]}
        assert expected <= set(numbers)
        if not numbers:
            self.gone |= self.possible
            self.possible = set()
        return numbers, those, entries

    def forgot(self, last: int, into: set[int]) -> None:
        """Whatever there was up to the last one read; it may come back when those of `into` may."""
        for numbers in (self.promised, self.possible):
            passed = {number for number in numbers if number <= last}
            numbers -= passed
            into |= passed


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
