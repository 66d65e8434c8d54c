"""The spool's files: numbered segments that are only ever appended to, and are deleted whole."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from backends.spool.frames import HEAD_BYTES, Entry, Found, scan, spooled_at

_NAME = re.compile(r"\d{12}\.segment")


class Segment:
    """One file. `size` is how far it is known to be on the disk; bytes beyond are nobody's."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.path = folder / f"{number:012}.segment"
        self.size = 0
        self._descriptor = -1

    def create(self) -> None:
        """Raises OSError. The folder is synced too: a file whose name is lost is lost."""
        self._descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        sync_folder(self.path.parent)

    def append(self, content: bytes) -> None:
        """On the disk when it returns, for the caller to add to `size`. Raises OSError; it is to be given up then.

        A failed fsync may have dropped what it could not write and a second one would then succeed, so it is not tried.
        """
        view = memoryview(content)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def give_up(self) -> None:
        """Cuts what a failed append left, as far as the disk lets us, and closes."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, self.size)
        with suppress(OSError):
            self.close()

    def recover(self) -> list[Found]:
        """Reads a segment that a process before left: its damage, which is kept aside, is returned.

        Its torn tail is cut. Raises OSError.
        """
        content = self.path.read_bytes()
        damage = []
        for found in scan(content):
            self.size = found.end
            if found.entry is None:
                damage.append(found)
                aside = self.path.with_name(f"{self.path.name}.{found.start}.damaged")
                aside.write_bytes(content[found.start : found.end])
        if self.size < len(content):
            os.truncate(self.path, self.size)
        return damage

    def read(self, offset: int) -> list[tuple[int, Entry]]:
        """The entries from there on, each with the offset behind it. Raises OSError."""
        with self.path.open("rb") as file:
            file.seek(offset)
            content = file.read(self.size - offset)
        return [(offset + found.end, found.entry) for found in scan(content) if found.entry is not None]

    def spooled_at(self, offset: int) -> int | None:
        """When the entry there was spooled, without reading it all."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return spooled_at(file.read(HEAD_BYTES))

    def delete(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


def existing(folder: Path) -> Iterator[Segment]:
    """The segments in the folder, oldest first, not recovered yet."""
    for path in sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)):
        yield Segment(folder, int(path.name.partition(".")[0]))


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
