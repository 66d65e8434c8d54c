"""A role as several processes: a parent that starts them, replaces one that ends, and ends itself when all have.

They are forks of a parent that does nothing else: what it has opened, such as a listening socket, they have too.
"""

import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import NoReturn

from service.garbage import settle

log = logging.getLogger(__name__)

CANNOT_START = 78
"""The exit code of a process that no other can do better than: a setting is wrong, a port is taken (EX_CONFIG)."""
BACK_OFF_SECONDS = 1.0
LOOK_SECONDS = 0.1
_ENDING = (signal.SIGTERM, signal.SIGINT)


class Parent:
    """For the main thread of a process that has no other thread. Call `fork`, and where it gives None `end`."""

    def __init__(self, processes: int) -> None:
        self._first = set(range(1, processes + 1))  # those that nothing has come after
        self._running: dict[int, int] = {}  # pid by number
        self._due = dict.fromkeys(self._first, 0.0)  # when each that does not run is to be started
        self._ending = threading.Event()
        self._well = True
        # Nobody writes to it. A child that reads its end knows that the parent is no more.
        self._life, self._held = os.pipe()

    def fork(self) -> int | None:
        """In each child its number, from 1. In the parent None, when it is told to end or one cannot start at all."""
        for one in _ENDING:
            signal.signal(one, self._on_signal)
        settle()  # the collector would write to what children share with the parent, and so copy it
        while True:
            now = time.monotonic()
            for number in [number for number, at in self._due.items() if at <= now]:
                del self._due[number]
                if self._start(number):
                    return number
            if self._ending.wait(LOOK_SECONDS):
                return None
            self._look()

    def end(self) -> NoReturn:
        """Has every child end in order and waits for them. Raises SystemExit, with 0 where all did."""
        for pid in self._running.values():
            os.kill(pid, signal.SIGTERM)
        for number, pid in self._running.items():
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status != 0:
                log.error("process has not ended in order", extra={"child": number, "status": status})
                self._well = False
        raise SystemExit(0 if self._well else 1)

    def _start(self, number: int) -> bool:
        """True in the child."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # the child must not take one for the parent's
        try:
            pid = os.fork()
            if pid == 0:
                self._become_child()
            else:
                self._running[number] = pid
        except OSError as error:  # no memory, or too many processes: those that run go on
            log.error("process not started", extra={"child": number, "problem": error.strerror})
            self._due[number] = time.monotonic() + BACK_OFF_SECONDS
            return False
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        return pid == 0

    def _become_child(self) -> None:
        os.close(self._held)
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=_end_with_parent, args=(self._life,), name="parent", daemon=True).start()

    def _look(self) -> None:
        for number, pid in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended == 0:
                continue
            del self._running[number]
            code = os.waitstatus_to_exitcode(status)
            if code == CANNOT_START and number in self._first:
                self._well = False
                self._ending.set()
                continue
            log.error("process ended, another is started", extra={"child": number, "status": code})
            self._first.discard(number)
            self._due[number] = time.monotonic() + BACK_OFF_SECONDS

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._ending.set()


def _leave(number: int, frame: FrameType | None) -> None:
    """Before and after the role serves, which has a handler of its own: nothing is under way."""
    os._exit(0)


def _end_with_parent(life: int) -> None:
    os.read(life, 1)
    log.error("the parent process is gone, so this one ends")
    os.kill(os.getpid(), signal.SIGTERM)
