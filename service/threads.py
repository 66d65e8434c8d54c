"""Threads of one process that wait for each other."""

import sys

SWITCH_SECONDS = 0.0005


def take_turns() -> None:
    """A thread keeps the interpreter from another for so long at most, and not the standard 5 ms.

    An acknowledgement of the log waits for it several times, and the writing of a batch at each answer of the store.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
