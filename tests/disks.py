"""A disk that fails, dies and forgets when a test says so, under everything that a folder's files are written with."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

_BY_PATH = ("open", "mkdir", "unlink", "truncate", "replace")
_BY_DESCRIPTOR = ("write", "fdatasync", "fsync", "ftruncate")


class Killed(BaseException):
    """The process is gone, as far as the disk can tell."""


class Call(NamedTuple):
    """What was asked of the disk: `path` below the folder, `.` for the folder."""

    name: str
    path: str


class Disk:
    """Of the files in one folder, which are watched while the monkeypatch lasts.

    A file that the folder was not synced for may be lost with the power, one that was deleted may come back.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.calls: list[Call] = []
        self.faulted = False
        self._faults: list[tuple[str, BaseException]] = []
        self._dead = False
        self._synced: dict[Path, int] = {}
        self._unsynced_names: set[Path] = set()
        self._deleted: dict[Path, bytes] = {}
        self.before: dict[str, Callable[[], None]] = {}
        for name in _BY_PATH + _BY_DESCRIPTOR:
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def fail(self, error: BaseException, *names: str) -> None:
        """The next calls of these names fail, one after the other; `*` is any call."""
        self._faults = [(name, error) for name in names]

    def kill(self, calls: int) -> None:
        """At the call after so many, and nothing reaches the disk after it."""
        self._faults = [(name, Killed()) for name in ["-"] * calls + ["*"]]

    def mend(self) -> None:
        self._faults, self._dead, self.faulted = [], False, False

    def lose_power(self, cut: Callable[[int, int], int], lost: Callable[[], bool]) -> None:
        """When no process has the files: each keeps between its synced size and all, as `cut` says."""
        for path in sorted(path for path in self.folder.iterdir() if path.is_file()):
            size = path.stat().st_size
            if path in self._unsynced_names and lost():
                path.unlink()
            elif path.suffix != ".damaged":
                with path.open("r+b") as file:
                    file.truncate(cut(min(self._synced.get(path, 0), size), size))
        for path, content in self._deleted.items():
            if not path.exists() and lost():
                path.write_bytes(content)
        self._deleted.clear()
        self._unsynced_names.clear()

    def names(self) -> list[str]:
        """The files there, but for the lock."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != "lock")

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any, **named: Any) -> Any:
            path = Path(f"/proc/self/fd/{first}").readlink() if name in _BY_DESCRIPTOR else Path(first)
            to_sync_a_folder = name == "open" and not rest[0] & os.O_CREAT
            if to_sync_a_folder or not (path == self.folder or self.folder in path.parents):
                return real(first, *rest, **named)
            if name in self.before:
                self.before.pop(name)()
            self.calls.append(Call(name, str(path.relative_to(self.folder))))
            self._raise_fault(name, lambda: real(first, rest[0][: len(rest[0]) // 2]) if name == "write" else None)
            self._note_before(name, path)
            # What is synced is noted: no power is lost here, and thousands of real syncs would take minutes.
            result = None if name in ("fdatasync", "fsync") else real(first, *rest, **named)
            self._note_after(name, path, rest)
            return result

        return call

    def _raise_fault(self, name: str, half: Callable[[], Any]) -> None:
        if self._dead:
            raise Killed
        if not self._faults:
            return
        wanted, error = self._faults[0]
        if wanted == "-":
            self._faults.pop(0)
        elif wanted in (name, "*"):
            self._faults.pop(0)
            self.faulted = True
            self._dead = isinstance(error, Killed)
            half()
            raise error

    def _note_before(self, name: str, path: Path) -> None:
        if name == "unlink" and path.exists():
            self._deleted[path] = path.read_bytes()[: self._synced.get(path, 0)]

    def _note_after(self, name: str, path: Path, rest: tuple[Any, ...]) -> None:
        if name == "open":
            self._unsynced_names.add(path)
        elif name == "fdatasync":
            self._synced[path] = path.stat().st_size
        elif name == "fsync":
            self._unsynced_names.clear()
            self._deleted.clear()
        elif name in ("truncate", "ftruncate"):
            self._synced[path] = min(self._synced.get(path, 0), rest[0])
        elif name == "replace":
            self._synced[Path(rest[0])] = self._synced.get(path, 0)
