"""Makes sure that what was deleted from a SQLite file is not in the file any more."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

BUSY_SECONDS = 30.0
CHUNK_BYTES = 4 * 1024 * 1024


class WipeError(ValueError):
    """The file is in use in a way that does not let it be done; it may be tried again."""


def wipe(path: str, needles: Sequence[bytes]) -> int:
    """How often any of these stands in the file or its write-ahead log, after all was done that it should not.

    SQLite overwrites deleted rows when it needs their place. Where they are still there the file is written anew.
    """
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            _checkpoint(connection)
            if occurrences(path, needles):
                connection.execute("VACUUM")
                _checkpoint(connection)
    except sqlite3.Error as error:
        raise WipeError(f"{path}: {error}; run it again") from error
    return occurrences(path, needles)


def occurrences(path: str, needles: Sequence[bytes]) -> int:
    """How often any of these stands in the file or its write-ahead log."""
    longest = max(map(len, needles), default=0)
    if not longest:
        return 0
    return sum(_in_file(file, needles, longest) for file in (Path(path), Path(f"{path}-wal")) if file.exists())


def _in_file(path: Path, needles: Sequence[bytes], longest: int) -> int:
    found = 0
    overlap = b""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            data = overlap + chunk
            found += sum(data.count(needle) - overlap.count(needle) for needle in needles)
            overlap = data[-(longest - 1) :] if longest > 1 else b""
    return found


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Empties the write-ahead log; a reader that is under way keeps it, and is waited for."""
    deadline = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and time.monotonic() < deadline:
        time.sleep(0.05)
