"""The spool's files: numbered segments that are only ever appended to, and are deleted whole."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from backends.spool.cursor import Place
from backends.spool.disk import sync_folder
from backends.spool.frames import HEAD_BYTES, Entry, scan, spooled_at

_NAME = re.compile(r"[0-9]{12}\.segment")


class Segment:
    """One file. `size` is how far it is known to be on the disk; bytes beyond are nobody's.

    `entries` and `events` are those that are not in the log yet, `damaged` the bytes that could not be read.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.path = folder / f"{number:012}.segment"
        self.size = self.entries = self.events = self.damaged = 0
        self._descriptor = -1

    def create(self) -> None:
        """Raises OSError, and leaves nothing then. The folder is synced too: a file whose name is lost is lost."""
        self._descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            sync_folder(self.path.parent)
        except BaseException:
            self.close()
            with suppress(OSError):
                self.delete()
            raise

    def append(self, content: bytes) -> None:
        """On the disk when it returns, for the caller to `grow`. Raises OSError; it is to be given up then.

        A failed fsync may have dropped what it could not write and a second one would then succeed, so it is not tried.
        """
        view = memoryview(content)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fdatasync(self._descriptor)

    def grow(self, size: int, entries: Sequence[Entry]) -> None:
        """These were appended."""
        self.size += size
        self.entries += len(entries)
        self.events += sum(entry.events for entry in entries)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):  # what was promised is synced
                os.close(descriptor)

    def give_up(self) -> None:
        """Cuts what a failed append left, as far as the disk lets us, and closes."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, self.size)
        self.close()

    def recover(self, cursor: Place) -> None:
        """Reads a segment that a process before left. Its torn tail is cut. Raises OSError."""
        content = self.path.read_bytes()
        for found in scan(content):
            self.size = found.end
            if found.entry is None:
                self.damaged += found.end - found.start
            elif Place(self.number, found.start) >= cursor:
                self.entries += 1
                self.events += found.entry.events
        if self.size < len(content):
            os.truncate(self.path, self.size)

    def read(self, start: int) -> tuple[list[Entry], int]:
        """The entries from there on, and the offset behind them. Raises OSError."""
        end = self.size  # grows meanwhile
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(max(0, end - start))
        found = [found for found in scan(content) if found.entry is not None]
        self.damaged = max(self.damaged, end - start - sum(one.end - one.start for one in found))
        return [one.entry for one in found if one.entry is not None], end

    def spooled_at(self, start: int) -> int | None:
        """When the first entry from there on was spooled; None where there is none. Raises OSError."""
        if self.damaged:
            entries, _ = self.read(start)
            return entries[0].at if entries else None
        with self.path.open("rb") as file:
            file.seek(start)
            return spooled_at(file.read(HEAD_BYTES))

    def delete(self) -> None:
        """One with damage is kept under another name, for people to look at. Raises OSError."""
        self.close()
        if self.damaged:
            self.path.replace(self.path.with_name(f"{self.path.name}.damaged"))
        else:
            self.path.unlink(missing_ok=True)


def existing(folder: Path) -> Iterator[Segment]:
    """The segments in the folder, oldest first, not recovered yet."""
    for path in sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)):
        yield Segment(folder, int(path.name.partition(".")[0]))
