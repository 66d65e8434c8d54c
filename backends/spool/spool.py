"""A queue on the disk: appended and fsynced before it returns, read in order, forgotten when the log has it.

At least once: what was read and not forgotten before a crash is read again, which de-duplication makes harmless.
"""

import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backends.spool import cursor
from backends.spool.cursor import Place
from backends.spool.disk import append_line, make_folder, probe
from backends.spool.frames import Entry, encode
from backends.spool.segments import Segment, existing

SEGMENT_BYTES = 4 * 1024 * 1024
SET_ASIDE = "set-aside.ndjson"
PROBE_BYTES = 64 * 1024

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SpoolError(Exception):
    """The disk cannot do it; nothing of what was asked is promised."""


class SpoolFull(SpoolError):
    """No room, of the disk or of the bound, or what is in it has waited too long."""


class SpoolInUse(SpoolError):
    """Another process has the folder."""


class Range(NamedTuple):
    """What was read."""

    start: Place
    end: Place


class Status(NamedTuple):
    """What is in it. `oldest_at` is epoch ms, `damaged` how many bytes could not be read since it was opened."""

    entries: int
    events: int
    size: int
    oldest_at: int | None
    damaged: int


class Spool:
    """For one process. Any thread may call anything; `append`, `read` and `forget` block on the disk."""

    def __init__(
        self, folder: str | Path, max_bytes: int, max_age: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Opens the folder, made if it is not there, and recovers what is in it. Raises SpoolInUse, SpoolError.

        `max_age` is seconds: with an entry in it that has waited longer, nothing more is taken.
        """
        self._folder = Path(folder).absolute()
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._clock = clock
        self._forgetting = threading.Lock()
        self._appending = threading.Lock()
        self._lock = threading.Lock()  # of all below; taken last, and never held while the disk works
        self._segments: deque[Segment] = deque()
        self._active: Segment | None = None
        self._next_number = 1
        self._cursor = Place()
        self._damaged = 0  # in segments that are done with
        self._oldest_at: int | None = None
        self._failure: str | None = None
        self._closed = False
        try:
            make_folder(self._folder)
            self._locked = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._recover()
            except BaseException:
                os.close(self._locked)
                raise
        except BlockingIOError:
            raise SpoolInUse(f"{folder} is in use by another process") from None
        except OSError as error:
            raise SpoolError(f"cannot open the spool {folder}: {error.strerror}") from error

    def append(self, entries: Sequence[Entry]) -> None:
        """On the disk when it returns. Raises SpoolFull or SpoolError for all of them."""
        if not entries:
            return
        try:
            content = b"".join(map(encode, entries))
        except ValueError as error:
            raise SpoolError(str(error)) from error
        with self._appending:
            self._check_open()
            self._end_if_read()
            self._check_room(len(content))
            try:
                segment = self._segment_for_append()
                segment.append(content)
                with self._lock:
                    segment.grow(len(content), entries)
                    self._failure = None
                    if self._oldest_at is None:
                        self._oldest_at = entries[0].at
            except BaseException as error:
                self._give_up()
                if not isinstance(error, OSError):
                    raise
                self._failure = error.strerror or type(error).__name__
                kind = SpoolFull if error.errno in _FULL else SpoolError
                raise kind(self._failure) from error

    def read(self) -> tuple[list[Entry], Range]:
        """The oldest entries, at most a segment of them, and where they stand. Raises SpoolError."""
        with self._lock:
            self._check_open()
            start = end = self._cursor
            unread = [(segment, self._unread_from(segment)) for segment in self._segments]
        for segment, offset in unread:
            if offset >= segment.size:
                continue
            try:
                entries, behind = segment.read(offset)
            except OSError as error:
                with self._lock:
                    forgotten = segment not in self._segments
                if forgotten:
                    continue  # by another thread, meanwhile
                raise SpoolError(f"cannot read the spool: {error.strerror}") from error
            end = Place(segment.number, behind)
            if entries:
                return entries, Range(start, end)
        if end > start:  # nothing that can be read is left there
            self.forget(Range(start, end), [])
        return [], Range(end, end)

    def forget(self, those: Range, entries: Sequence[Entry]) -> None:
        """The log has these entries, which were read together and stand there. Never raises.

        What a crash or a full disk keeps from being noted is read again after a start, and what another thread read
        and forgot meanwhile is left as that one left it.
        """
        with self._forgetting:
            idle = self._appending.acquire(blocking=False)  # only then the segment that is appended to may end
            try:
                with self._lock:
                    if self._closed or self._cursor != those.start:
                        return
                    self._count_off(those.end, entries)
                    self._cursor = those.end
                    if idle and self._active is not None and self._is_read(self._active):
                        self._active = None
                    done = self._take_read()
                    oldest = next((one for one in self._segments if self._unread_from(one) < one.size), None)
                    if oldest is None:
                        self._oldest_at = None
            finally:
                if idle:
                    self._appending.release()
            with suppress(OSError):
                cursor.store(self._folder, those.end)
            _delete(done)
            if oldest is not None:
                self._find_oldest(oldest)

    def set_aside(self, entry: Entry) -> None:
        """Keeps an entry that the log will never take in the file `set-aside.ndjson`. Raises SpoolError."""
        try:
            append_line(self._folder / SET_ASIDE, entry.line)
        except OSError as error:
            raise SpoolError(f"cannot set a line aside: {error.strerror}") from error

    def status(self) -> Status:
        with self._lock:
            return Status(
                entries=sum(segment.entries for segment in self._segments),
                events=sum(segment.events for segment in self._segments),
                size=sum(segment.size for segment in self._segments),
                oldest_at=self._oldest_at,
                damaged=self._damaged + sum(segment.damaged for segment in self._segments),
            )

    def problem(self) -> str | None:
        """Why it would take nothing now. A disk that failed is tried: without requests nothing else would find out."""
        try:
            self._check_open()
            self._check_room(PROBE_BYTES)
            if self._failure is not None:
                probe(self._folder, PROBE_BYTES)
                self._failure = None
        except SpoolError as problem:
            return str(problem)
        except OSError as error:
            return error.strerror or type(error).__name__
        return None

    def close(self) -> None:
        """The folder is another's to use."""
        with self._forgetting, self._appending, self._lock:
            if self._closed:
                return
            self._closed = True
            if self._active is not None:
                self._active.close()
                self._active = None
            os.close(self._locked)

    def _check_open(self) -> None:
        if self._closed:
            raise SpoolError("the spool is closed")

    def _check_room(self, size: int) -> None:
        status = self.status()
        if status.size + size > self._max_bytes:
            raise SpoolFull("the spool is full")
        if status.oldest_at is not None and self._clock() * 1000 - status.oldest_at > self._max_age * 1000:
            raise SpoolFull("what is spooled has waited too long")

    def _segment_for_append(self) -> Segment:
        if self._active is not None and self._active.size >= SEGMENT_BYTES:
            self._active.close()
            self._active = None
        if self._active is None:
            segment = Segment(self._folder, self._next_number)
            self._next_number += 1
            segment.create()
            with self._lock:
                self._segments.append(segment)
                self._active = segment
        return self._active

    def _end_if_read(self) -> None:
        """What an append kept `forget` from ending must not take room for ever."""
        with self._lock:
            if self._active is None or not self._is_read(self._active):
                return
            self._active = None
            done = self._take_read()
        _delete(done)

    def _give_up(self) -> None:
        """What was synced of the segment stays; the next append begins another."""
        segment = self._active
        if segment is None:
            return
        segment.give_up()
        with self._lock:
            self._active = None
            done = self._take_read()
        _delete(done)

    def _count_off(self, end: Place, entries: Sequence[Entry]) -> None:
        for segment in self._segments:
            if Place(segment.number, segment.size) <= end:
                segment.entries = segment.events = 0  # those that could not be read too
            elif segment.number == end.segment:
                segment.entries -= len(entries)
                segment.events -= sum(entry.events for entry in entries)

    def _take_read(self) -> list[Segment]:
        """Those that are in the log up to their end, and nobody appends to; they are the caller's to delete."""
        done = [segment for segment in self._segments if segment is not self._active and self._is_read(segment)]
        for segment in done:
            self._segments.remove(segment)
            self._damaged += segment.damaged
        return done

    def _is_read(self, segment: Segment) -> bool:
        return self._unread_from(segment) >= segment.size

    def _unread_from(self, segment: Segment) -> int:
        """The offset in it before which everything is in the log."""
        if segment.number < self._cursor.segment:
            return segment.size
        return self._cursor.offset if segment.number == self._cursor.segment else 0

    def _find_oldest(self, segment: Segment) -> None:
        with suppress(OSError):
            oldest_at = segment.spooled_at(self._unread_from(segment))
            if oldest_at is not None:
                self._oldest_at = oldest_at

    def _recover(self) -> None:
        self._cursor = cursor.load(self._folder)
        # Numbers are never used again: a cursor that was not noted in time must not point into a later segment.
        self._next_number = self._cursor.segment + 1
        for segment in existing(self._folder):
            segment.recover(self._cursor)
            self._next_number = max(self._next_number, segment.number + 1)
            if segment.entries:
                self._segments.append(segment)
            else:
                self._damaged += segment.damaged
                _delete([segment])
        if self._segments:
            self._find_oldest(self._segments[0])


def _delete(segments: Sequence[Segment]) -> None:
    """What stays is read again after a start."""
    for segment in segments:
        with suppress(OSError):
            segment.delete()
