"""`python -m chaos.process edge`: the real program, with what was synced to the disk noted beside it.

The note is what lets the harness play a loss of power: kill the process, then take from the spool's folder what was
never synced, which is what a lost page cache leaves.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chaos.sabotage import SABOTAGES

NOTE = "CHAOS_SYNCED"
"""The environment variable with the file of notes: `inode length` of a file that was synced, of a folder the inodes."""


def note_syncs(note: Path) -> None:
    """Wraps os.fsync and os.fdatasync of this process. The note is written before the caller hears of the success."""
    descriptor = os.open(note, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def noting(sync: Callable[[Any], None]) -> Callable[[Any], None]:
        def synced(fd: Any) -> None:
            before = os.fstat(fd)  # what is written while it syncs may not be on the disk
            if stat.S_ISDIR(before.st_mode):
                with os.scandir(fd) as entries:
                    said = " ".join(["folder", *(str(entry.inode()) for entry in entries)])
            else:
                said = f"{before.st_ino} {before.st_size}"
            sync(fd)
            os.write(descriptor, f"{said}\n".encode())

        return synced

    os.fsync = noting(os.fsync)  # type: ignore[assignment]
    os.fdatasync = noting(os.fdatasync)  # type: ignore[assignment]


def lose_power(folder: Path, note: Path) -> int:
    """Leaves what was synced of the files and of their names; returns the bytes lost. The process is dead by now."""
    lengths: dict[int, int] = {}
    named: set[int] = set()
    for line in note.read_text().splitlines() if note.exists() else []:
        what, *numbers = line.split()
        if what == "folder":
            named.update(map(int, numbers))
        else:
            lengths[int(what)] = int(numbers[0])
    lost = 0
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        found = path.stat()
        kept = min(found.st_size, lengths.get(found.st_ino, 0))
        lost += found.st_size - kept
        if found.st_ino in named:
            os.truncate(path, kept)
        else:
            path.unlink()
    return lost


@click.command()
@click.option("--sabotage", type=click.Choice(list(SABOTAGES)))
@click.argument("role", type=click.Choice(["edge", "worker"]))
def main(sabotage: str | None, role: str) -> None:
    """Run a role as `zenstep` does."""
    from cli.main import main as zenstep

    if note := os.environ.get(NOTE):
        note_syncs(Path(note))
    if sabotage is not None:
        SABOTAGES[sabotage]()
    zenstep([role], standalone_mode=True)


if __name__ == "__main__":
    main()
