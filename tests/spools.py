"""What the tests of the spool share: one in a folder of the test's own, on a disk that the test may have fail."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import backends.spool.spool as spool_module
from backends.spool import Entry, Spool
from tests.disks import Disk

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")

Opened = Callable[..., Spool]
"""Takes `max_bytes`, `max_age` and `clock`."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Disk:
    return Disk(monkeypatch, folder)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every append begins one."""
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 1)


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    """Opens the spool, again too: the one before is closed, as the end of its process does it."""
    spools: list[Spool] = []

    def open_again(max_bytes: int = 10**9, max_age: float = 10**9, clock: Callable[[], float] = lambda: 0.0) -> Spool:
        for spool in spools:
            spool.close()
        spools.append(Spool(folder, max_bytes, max_age, clock))
        return spools[-1]

    yield open_again
    for spool in spools:
        spool.close()


def entry(name: str, at: int = 1000, events: int = 1) -> Entry:
    return Entry("topic", "organisation", at, events, name.encode())


def append(spool: Spool, *names: str) -> None:
    spool.append([entry(name) for name in names])


def forget_all(spool: Spool) -> list[str]:
    """What could be read, in order."""
    names: list[str] = []
    while True:
        entries, those = spool.read()
        if not entries:
            return names
        names += [one.line.decode() for one in entries]
        spool.forget(those, entries)


def unread(spool: Spool) -> list[str]:
    """Of the oldest segment."""
    return [one.line.decode() for one in spool.read()[0]]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))
