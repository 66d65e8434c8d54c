"""Four ways to break the promise, so that the harness can be seen to find each. Never a flag of the product."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any


def dedup() -> None:
    """Every event's id counts as new."""
    from backends.store.counting import Transaction

    add_seen = Transaction.add_seen

    def all_new(self: Transaction, ids: Mapping[tuple[str, int], Sequence[str]]) -> set[tuple[str, str]]:
        add_seen(self, ids)
        return set()

    Transaction.add_seen = all_new  # type: ignore[method-assign]
    Transaction.seen_on_any_day = lambda self, ids: set()  # type: ignore[method-assign]


def cas() -> None:
    """The offset is set without comparing, so a worker whose partition moved writes all the same."""
    from backends.store.counting import Move, Transaction
    from schemas import tables as t

    def set_only(self: Transaction, moves: Iterable[Move]) -> None:
        o = t.offsets.c
        for move in sorted(moves):
            where = (o.topic == move.topic, o.partition == move.partition)
            values = {"next_offset": move.following, "processed_through": move.processed_through}
            self._connection.execute(t.offsets.update().where(*where).values(values))

    Transaction.move_offsets = set_only  # type: ignore[method-assign]


def early() -> None:
    """The edge answers before the log, or the spool, has acknowledged."""
    from ingest.durable import Durable

    put: Any = Durable.put
    running: set[asyncio.Task[Any]] = set()

    def forget(task: "asyncio.Task[Any]") -> None:
        running.discard(task)
        if not task.cancelled():
            task.exception()  # nobody is told of it: that is the sabotage

    async def put_and_forget(self: Durable, *arguments: Any, **named: Any) -> None:
        task = asyncio.create_task(put(self, *arguments, **named))
        running.add(task)
        task.add_done_callback(forget)

    Durable.put = put_and_forget  # type: ignore[method-assign]


def fsync() -> None:
    """Nothing is ever forced to the disk."""
    os.fsync = os.fdatasync = lambda fd: None


SABOTAGES: dict[str, Callable[[], None]] = {"dedup": dedup, "cas": cas, "early": early, "fsync": fsync}
