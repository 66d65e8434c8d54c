"""One batch, from records to the commit: read, scope, then everything in one transaction.

This is where exactly once is kept: the offset moves by compare-and-set, ids are entered and the events that were new
are counted, all or nothing. Whatever is killed when, the store holds a batch whole or not at all.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import groupby
from operator import attrgetter, or_
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from backends.log import Record, TopicPartition
from backends.store.catalog import Catalog
from backends.store.counting import Counting, Move, OffsetMoved, Transaction
from backends.store.days import create_day_partitions
from backends.store.engine import ENVIRONMENT_ERRORS
from backends.store.rows import SKETCH_ROWS, chunks
from schemas import tables as t
from service import metrics
from workers import accounting, clock, items, small
from workers.accounting import Written
from workers.bisect import AllFail, Failed, bisect
from workers.days import add_days, days_of
from workers.fold import Cell, fold, merged
from workers.forgetting import Forgotten, strangers
from workers.items import Item, Rejection
from workers.limit import Limit, TooMuchPoison
from workers.scope import Named, Scope
from workers.sessions import by_session

log = logging.getLogger(__name__)

R = TypeVar("R")

CUSTOM_NAMES = 1000  # an organisation's; further names are counted as (other) (our decision)
HOSTS = 100  # an organisation's; those seen longest ago are forgotten (our decision)

NOBODYS = (*ENVIRONMENT_ERRORS, OffsetMoved)
"""Errors that no event has caused: they put off the batch."""


class Facts(NamedTuple):
    """What holds to the end of a transaction: which organisations there are, the first day whose ids are kept, whom to
    leave out, and the epoch second at which the UTC day of now began."""

    organisations: set[str]
    horizon: int
    forgotten: Forgotten
    today: int


class Prepared(NamedTuple):
    """A batch that only has to be written."""

    moves: list[Move]
    items: Sequence[Item]
    named: Named
    aside: list[Rejection]
    redelivered: int
    seconds: float  # what that took


class Batches:
    """Applies batches: `prepare` and `write`, of which one thread may do the first and another the second.

    Both raise SQLAlchemy's errors and TooMuchPoison, and `write` OffsetMoved for a partition that moved on without us.
    """

    def __init__(self, engine: sa.Engine, limit: Limit | None = None, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._counting = Counting(engine)
        self._scope = Scope(Catalog(engine).flows)
        self._limit = limit or Limit()
        self._days: set[int] = set()

    def apply(self, records: Sequence[Record], expected: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Counts these records and moves the offsets from `expected`; returns where they now stand."""
        return self.write(self.prepare(records, expected))

    def prepare(self, records: Sequence[Record], expected: Mapping[TopicPartition, int]) -> Prepared:
        """Reads the records, and looks up and makes what is needed outside of the transaction.

        Records below the expected offset are left out: they are counted already.
        """
        began = time.perf_counter()
        stands: Mapping[tuple[str, int], int] = {(tp.topic, tp.partition): offset for tp, offset in expected.items()}
        fresh = [r for r in records if r.offset >= stands[r.topic, r.partition]]
        read, aside = items.read(fresh)
        try:
            named = self._look_up(read)
        except NOBODYS:
            raise
        except Exception as error:
            log.warning("a batch fails: looking for what fails in it", extra={"kind": type(error).__name__})
            parts, failed = self._bisected(read, lambda part: (part, self._look_up(part)))
            aside += accounting.set_aside(read, failed)
            read = [item for part, _ in parts for item in part]
            named = reduce(or_, (of_part for _, of_part in parts), Named({}))
        self._scope.trim()
        redelivered = len(records) - len(fresh)
        return Prepared(_moves(fresh, expected), read, named, aside, redelivered, time.perf_counter() - began)

    def write(self, batch: Prepared) -> dict[TopicPartition, int]:
        """Where the batch fails by its content, the events that fail alone are found and set aside as poison, and the
        rest counts, in one transaction all the same. Returns where the offsets now stand.
        """
        began = time.perf_counter()
        try:
            written = self._transact(batch, self._write_whole)
        except (*NOBODYS, TooMuchPoison):
            raise
        except Exception as error:
            log.warning("a batch fails: looking for what fails in it", extra={"kind": type(error).__name__})
            written = self._transact(batch, self._write_parts)
        metrics.batch_seconds.observe(batch.seconds + time.perf_counter() - began)
        metrics.records_redelivered.inc(batch.redelivered)
        accounting.observe(written)
        return {TopicPartition(move.topic, move.partition): move.following for move in batch.moves}

    def _look_up(self, read: Sequence[Item]) -> Named:
        items.date(read)
        named = self._scope.look_up(read)
        self._ensure_days({item.day for item in read})
        return named

    def _transact(self, batch: Prepared, write: Callable[[Transaction, Prepared, Facts], list[Written]]) -> Written:
        with self._counting.transaction() as transaction:
            transaction.move_offsets(batch.moves)
            whose = {item.organisation for item in batch.items} | {rejection.organisation for rejection in batch.aside}
            existing = transaction.lock_organisations(whose)
            forgotten = Forgotten(transaction.forgotten(whose, strangers(batch.aside)))
            facts = Facts(existing, transaction.horizon(), forgotten, int(self._clock()) // t.DAY * t.DAY)
            parts = [Written(batch.aside, Counter()), *write(transaction, batch, facts)]
            written = accounting.together(parts)
            transaction.reject(accounting.rejected_row(forgotten.rejection(one)) for one in written.rejections)
            transaction.add(t.ledger, {key: [n] for key, n in written.outcomes.items()})
            weighed = self._limit.weigh(accounting.fates(batch.items, written))
        self._limit.keep(weighed)
        return written

    def _write_whole(self, transaction: Transaction, batch: Prepared, facts: Facts) -> list[Written]:
        return [_write(transaction, batch.items, batch.named, facts)]

    def _write_parts(self, transaction: Transaction, batch: Prepared, facts: Facts) -> list[Written]:
        def attempt(part: Sequence[Item]) -> Written:
            with transaction.part():
                return _write(transaction, part, batch.named, facts)

        written, failed = self._bisected(batch.items, attempt)
        return [*written, Written(accounting.set_aside(batch.items, failed), Counter())]

    def _bisected(self, read: Sequence[Item], attempt: Callable[[Sequence[Item]], R]) -> tuple[list[R], list[Failed]]:
        try:
            return bisect(read, attempt, NOBODYS, self._limit.in_a_row)
        except AllFail as error:
            raise accounting.too_many_fail(read, error) from error

    def _ensure_days(self, days: set[int]) -> None:
        missing = days - self._days
        if missing:
            create_day_partitions(self._engine, missing)
            self._days = {day for day in self._days | missing if day >= max(missing) - 2 * clock.WINDOW_DAYS}


def _moves(records: Sequence[Record], expected: Mapping[TopicPartition, int]) -> list[Move]:
    lasts = {(record.topic, record.partition): record for record in records}
    return [Move(*key, expected[TopicPartition(*key)], last.offset + 1, last.timestamp) for key, last in lasts.items()]


def _write(transaction: Transaction, read: Sequence[Item], named: Named, facts: Facts) -> Written:
    accepted: list[Item] = []
    rejections: list[Rejection] = []
    organisations, horizon, problem_of = facts.organisations, facts.horizon, named.problem
    for item in read:
        problem = problem_of(item) if item.organisation in organisations else "unknown_organisation"
        if problem is None and (item.too_old or item.day < horizon):
            problem = "too_old"
        if problem is None:
            accepted.append(item)
        else:
            rejections.append(items.reject(item, problem))
    if facts.forgotten:
        accepted = [facts.forgotten.item(item) for item in accepted]
    new = _new(transaction, accepted)
    _count(transaction, new, named, facts.today)
    odd = [item for item in new if item.clamped or item.late]
    outcomes = accounting.outcomes_of(accepted, new)
    return Written(rejections, outcomes, sum(item.clamped for item in odd), sum(item.late for item in odd))


def _new(transaction: Transaction, accepted: list[Item]) -> list[Item]:
    """The items whose ids were not in; of several with one id in this batch, the first."""
    first = accepted
    if len({item.id for item in accepted}) < len(accepted):
        by_id: dict[tuple[str, str], Item] = {}
        for item in accepted:
            by_id.setdefault((item.organisation, item.id), item)
        first = list(by_id.values())
    known = transaction.seen_on_any_day([(i.organisation, i.id) for i in first if i.everywhere])
    if known:
        first = [item for item in first if (item.organisation, item.id) not in known]
    ids: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
    for of, together in groupby(first, attrgetter("organisation", "day")):  # they come a request at a time
        ids[of] += [item.id for item in together]
    known = transaction.add_seen(ids)
    return [item for item in first if (item.organisation, item.id) not in known] if known else first


def _admitted(transaction: Transaction, new: list[Item]) -> set[tuple[str, str]]:
    wanted: dict[str, set[str]] = {}
    for item in new:
        if item.event is not None and item.event.type == "custom" and item.event.name:
            wanted.setdefault(item.organisation, set()).add(item.event.name)
    return transaction.admit_names(wanted, CUSTOM_NAMES) if wanted else set()


def _add_many(transaction: Transaction, table: sa.Table, values: Mapping[Cell, Any]) -> Mapping[Cell, Any]:
    """Adds to a table's sketches, so many at a time, since one may have 32 KiB. Returns the last so many."""
    *more, last = [dict(part) for part in chunks(list(values.items()), SKETCH_ROWS)] or [{}]
    for part in more:
        transaction.add(table, {}, merged(table, part, transaction.sketches(table, part)))
    return last


def _count(transaction: Transaction, new: list[Item], named: Named, today: int) -> None:
    sessions = by_session(new)
    folded = fold(new, sessions, transaction.sessions(sessions), named.positions, _admitted(transaction, new))
    days = days_of(folded)
    still_open = transaction.open_days(days, today)
    if not days <= still_open:
        add_days(folded, still_open)
    left = small.fold(new)
    unmerged = {table: _add_many(transaction, table, added.values) for table, added in folded.cells.items()}
    stored = {table: transaction.sketches(table, values) for table, values in unmerged.items()}
    with transaction.pipelined():
        transaction.save_sessions(folded.sessions)
        for table, values in unmerged.items():
            transaction.add(table, folded.cells[table].counters, merged(table, values, stored[table]))
        for table, rows in left.latest.items():
            transaction.keep_latest(table, [rows[key] for key in sorted(rows)])
        transaction.add(t.step_health_days, left.health)
        transaction.save_heartbeats(left.last_seen, HOSTS)
