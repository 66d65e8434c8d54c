"""What a process and all that it has started have cost: CPU time and memory from /proc, and the core they run on."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Cost(NamedTuple):
    """CPU seconds, user and system, since the tree began, children that have ended included; resident bytes now."""

    user: float
    system: float
    rss: int

    @property
    def cpu(self) -> float:
        return self.user + self.system


def tree(pid: int) -> Iterator[int]:
    """The process and all its descendants that run at this moment."""
    yield pid
    children = []
    with suppress(OSError):  # it has just ended, or one of its threads has
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            children += task.read_text().split()
    for child in children:
        yield from tree(int(child))


def cost(pid: int) -> Cost:
    """Of the tree, to a hundredth of a second: measure over seconds."""
    user = system = rss = 0
    for process in tree(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        own_user, own_system, waited_user, waited_system = (int(field) for field in fields[11:15])
        user += own_user + waited_user
        system += own_system + waited_system
        rss += int(fields[21])
    return Cost(user / _TICK, system / _TICK, rss * _PAGE)


def pin(pid: int, *cores: int) -> None:
    """Binds a process, its threads and what it has started to these cores; what they start later inherits it."""
    for process in tree(pid):
        with suppress(OSError):  # it has just ended
            for thread in Path(f"/proc/{process}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)
