"""Who asks for something that takes a while hears of it by a call, or waits for a future that is made of one."""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

log = logging.getLogger(__name__)

T = TypeVar("T")

Told = Callable[[T | Exception], None]
"""Hears once what has come of it, or what is in the way."""


class Waiting(msgspec.Struct, Generic[T]):
    """One who is to be told."""

    told: Told[T] | None  # until it is

    def tell(self, outcome: T | Exception) -> None:
        """The first time. Whoever tells has others to tell: a fault of one is none of theirs."""
        told, self.told = self.told, None
        if told is None:
            return
        try:
            told(outcome)
        except Exception:
            log.exception("fault of one who was told")


def into(future: "asyncio.Future[T]") -> Told[T]:
    """The future's outcome, unless who waits for it has gone."""

    def told(outcome: T | Exception) -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    return told
