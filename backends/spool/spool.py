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


class Position(NamedTuple):
    """Between two entries. Everything before it is in the log."""

    segment: int = 0
    offset: int = 0


class Status(NamedTuple):
    """What is in it. `oldest_at` is epoch ms, `damaged` how many bytes could not be read when it was opened."""

    entries: int
    events: int
    size: int
    oldest_at: int | None
    damaged: int


class Spool:
    """For one process. Any thread may call anything; `append` and `read` block on the disk."""

    def __init__(
        self, folder: str | Path, max_bytes: int, max_age: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Opens the folder, made if it is not there, and recovers what is in it. Raises SpoolInUse, SpoolError.

        `max_age` is seconds: with an entry in it that has waited longer, nothing more is taken.
        """
        self._folder = Path(folder)
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._clock = clock
        self._appending = threading.Lock()
        self._lock = threading.Lock()  # of all below; never held while the disk is written
        self._segments: deque[Segment] = deque()
        self._active: Segment | None = None
        self._next_number = 1
        self._cursor = Position()
        self._entries = self._events = self._damaged = 0
        self._oldest_at: int | None = None
        self._failure: str | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        content = b"".join(map(encode, entries))
        with self._appending:
            self._check_room(len(content))
            try:
                segment = self._segment_for_append()
                segment.append(content)
            except OSError as error:
                self._give_up()
                self._failure = error.strerror or type(error).__name__
                kind = SpoolFull if error.errno in _FULL else SpoolError
                raise kind(self._failure) from error
            with self._lock:
                segment.size += len(content)
                self._failure = None
                self._entries += len(entries)
                self._events += sum(entry.events for entry in entries)
                if self._oldest_at is None:
                    self._oldest_at = entries[0].at

    def read(self) -> tuple[list[Entry], Position]:
        """The oldest entries, at most a segment of them, and where they end. Raises SpoolError."""
        with self._lock:
            segments = [segment for segment in self._segments if segment.number >= self._cursor.segment]
        for segment in segments:
            offset = self._cursor.offset if segment.number == self._cursor.segment else 0
            try:
                found = segment.read(offset)
            except OSError as error:
                raise SpoolError(f"cannot read the spool: {error.strerror}") from error
            if found:
                return [entry for _, entry in found], Position(segment.number, found[-1][0])
        return [], self._cursor

    def forget(self, position: Position, entries: Sequence[Entry]) -> None:
        """The log has these entries, which were read up to this position. Never raises.

        What a crash or a full disk keeps from being noted is read again after a start.
        """
        idle = self._appending.acquire(blocking=False)  # only then the segment that is appended to may end
        try:
            with self._lock:
                self._cursor = position
                self._entries -= len(entries)
                self._events -= sum(entry.events for entry in entries)
                if idle and self._active is not None and position == (self._active.number, self._active.size):
                    self._active = None
                done = [s for s in self._segments if s is not self._active and self._is_read(s)]
                for segment in done:
                    self._segments.remove(segment)
                self._oldest_at = self._peek()
        finally:
            if idle:
                self._appending.release()
        with suppress(OSError):
            fresh = self._folder / "cursor.new"
            with fresh.open("w") as file:
                file.write(f"{position.segment} {position.offset}\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._folder / "cursor")
        for segment in done:
            with suppress(OSError):
                segment.delete()

    def set_aside(self, entry: Entry) -> None:
        """Keeps an entry that the log will never take in the file `set-aside.ndjson`. Raises SpoolError."""
        try:
            with (self._folder / SET_ASIDE).open("ab") as file:
                file.write(entry.line + b"\n")
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as error:
            raise SpoolError(f"cannot set a line aside: {error.strerror}") from error

    def status(self) -> Status:
        with self._lock:
            size = sum(segment.size for segment in self._segments)
            return Status(self._entries, self._events, size, self._oldest_at, self._damaged)

    def problem(self) -> str | None:
        """Why it would take nothing now. A disk that failed is tried: without requests nothing else would find out."""
        try:
            self._check_room(PROBE_BYTES)
            if self._failure is not None:
                self._probe()
        except SpoolFull as full:
            return str(full)
        except OSError as error:
            return error.strerror or type(error).__name__
        return None

    def close(self) -> None:
        """The folder is another's to use."""
        with self._appending, self._lock:
            if self._active is not None:
                self._active.close()
                self._active = None
            os.close(self._locked)

    def _probe(self) -> None:
        path = self._folder / "probe"
        try:
            with path.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fdatasync(file.fileno())
        finally:
            path.unlink(missing_ok=True)
        self._failure = None

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

    def _give_up(self) -> None:
        """What was synced of the segment stays; the next append begins another."""
        with self._lock:
            segment, self._active = self._active, None
            if segment is None:
                return
            segment.give_up()
            if segment.size == 0:
                self._segments.remove(segment)
                with suppress(OSError):
                    segment.delete()

    def _is_read(self, segment: Segment) -> bool:
        """Up to its end."""
        return Position(segment.number, segment.size) <= self._cursor

    def _recover(self) -> None:
        self._cursor = self._stored_cursor()
        for segment in existing(self._folder):
            self._damaged += sum(found.end - found.start for found in segment.recover())
            self._next_number = segment.number + 1
            if segment.number < self._cursor.segment or segment.size == 0:
                segment.delete()
                continue
            self._segments.append(segment)
            offset = self._cursor.offset if segment.number == self._cursor.segment else 0
            for _, entry in segment.read(offset):
                self._entries += 1
                self._events += entry.events
        # Numbers are never used again: a cursor that was not noted in time must not point into a later segment.
        self._next_number = max(self._next_number, self._cursor.segment + 1)
        self._oldest_at = self._peek()

    def _stored_cursor(self) -> Position:
        """A cursor that a crash lost or tore is the beginning: what is read twice is counted once."""
        try:
            segment, offset = (self._folder / "cursor").read_text().split()
            return Position(int(segment), int(offset))
        except (FileNotFoundError, ValueError):
            return Position()

    def _peek(self) -> int | None:
        """When the oldest entry was spooled."""
        for segment in self._segments:
            offset = self._cursor.offset if segment.number == self._cursor.segment else 0
            if offset < segment.size:
                with suppress(OSError):
                    return segment.spooled_at(offset)
        return None
