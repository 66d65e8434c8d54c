"""Where the spools of one edge are: its folder itself, or the folders 1, 2, ... in it where it is several processes."""

import re
from pathlib import Path

_NUMBER = re.compile(r"[1-9]\d*")


def spool_of(folder: Path, process: int) -> Path:
    """The folder of one of several processes, numbered from 1."""
    return folder / str(process)


def spools_in(folder: Path) -> list[Path]:
    """Every folder that has been a spool, whoever's."""
    numbered = [one for one in folder.glob("*") if _NUMBER.fullmatch(one.name)]
    return [one for one in (folder, *sorted(numbered, key=lambda one: int(one.name))) if (one / "lock").is_file()]
