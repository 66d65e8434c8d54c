"""The disk of an edge's spool: one of its own that can be filled, where this user may mount; else a bound on files."""

import os
import resource
import subprocess
from contextlib import suppress
from pathlib import Path

DISK_BYTES = 24 * 1024 * 1024


class SpoolDisk:
    """`path` is the folder to spool into. `close` takes the disk away again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "chaos", str(path)]
        self._mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self._filler = path / "filler"

    @property
    def how(self) -> str:
        return "tmpfs" if self._mounted else "a bound on the size of files"

    def fill(self, pid: int | None) -> None:
        """Until `make_room`, no file of the spool can grow. `pid` is the edge."""
        if not self._mounted:
            if pid is not None:
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        with suppress(OSError), self._filler.open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))

    def make_room(self, pid: int | None) -> None:
        if self._mounted:
            self._filler.unlink(missing_ok=True)
        elif pid is not None:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)
