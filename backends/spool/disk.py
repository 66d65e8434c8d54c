"""What the spool asks of the disk beside its segments. Everything here raises OSError."""

import os
from pathlib import Path


def make_folder(folder: Path) -> None:
    """With those above it, so that no power cut takes them away."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: bytes) -> None:
    """On the disk when it returns. A half line that a crash left there does not swallow it."""
    with path.open("a+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            line = b"\n" + line
        rest = memoryview(line + b"\n")
        try:
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
            os.fdatasync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
    sync_folder(path.parent)


def probe(folder: Path, size: int) -> None:
    """Whether so many bytes can be written now."""
    path = folder / "probe"
    try:
        with path.open("wb") as file:
            file.write(bytes(size))
            file.flush()
            os.fdatasync(file.fileno())
    finally:
        path.unlink(missing_ok=True)
