"""One batch, from records to the commit: read, scope, then everything in one transaction.

This is where exactly once is kept: the offset moves by compare-and-set, ids are entered and the events that were new
are counted, all or nothing. Whatever is killed when, the store holds a batch whole or not at all.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from backends.log import Record, TopicPartition
from backends.store.catalog import Catalog
from backends.store.counting import Counting, Move, OffsetMoved, Transaction
from backends.store.engine import ENVIRONMENT_ERRORS
from backends.store.migrate import create_day_partitions
from schemas import tables as t
from schemas.records import Place
from service import metrics
from workers import accounting, clock, items, small
from workers.accounting import Written
from workers.bisect import AllFail, Failed, bisect
from workers.fold import Counted, Folded, fold, merge, session_key
from workers.forgetting import Forgotten, strangers
from workers.items import Item, Rejection
from workers.limit import Limit, TooMuchPoison
from workers.scope import Scope

log = logging.getLogger(__name__)

R = TypeVar("R")

CUSTOM_NAMES = 1000  # an organisation's; further names are counted as (other) (our decision)
HOSTS = 100  # an organisation's; those seen longest ago are forgotten (our decision)

NOBODYS = (*ENVIRONMENT_ERRORS, OffsetMoved)
"""Errors that no event has caused: they put off the batch."""


class Facts(NamedTuple):
    """What holds to the end of a transaction: which organisations there are, the first day whose ids are kept, and whom
    to leave out."""

    organisations: set[str]
    horizon: int
    forgotten: Forgotten


class Batches:
    """Applies batches.

    Raises OffsetMoved for a partition that moved on without us, TooMuchPoison, SQLAlchemy's errors otherwise.
    """

    def __init__(self, engine: sa.Engine, limit: Limit | None = None) -> None:
        self._engine = engine
        self._counting = Counting(engine)
        self._scope = Scope(Catalog(engine).flows)
        self._limit = limit or Limit()
        self._days: set[int] = set()

    def apply(self, records: Sequence[Record], expected: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Counts these records and moves the offsets from `expected`; returns where they now stand.

        Records below the expected offset are left out: they are counted already. Where the batch fails by its content,
        the events that fail alone are found and set aside as poison, and the rest counts, in one transaction all the
        same.
        """
        fresh = [r for r in records if r.offset >= expected[TopicPartition(r.topic, r.partition)]]
        moves = _moves(fresh, expected)
        with metrics.batch_seconds.time():
            read, rejections = items.read(fresh)
            try:
                self._prepare(read)
                batch = self._transact(moves, read, rejections, self._write_whole)
            except (*NOBODYS, TooMuchPoison):
                raise
            except Exception as error:
                log.warning("a batch fails: looking for what fails in it", extra={"kind": type(error).__name__})
                ready, unready = self._bisected(read, self._prepare)
                aside = rejections + accounting.set_aside(read, unready)
                batch = self._transact(moves, [item for part in ready for item in part], aside, self._write_parts)
        self._scope.trim()
        metrics.records_redelivered.inc(len(records) - len(fresh))
        accounting.observe(batch)
        return {TopicPartition(move.topic, move.partition): move.following for move in moves}

    def _prepare(self, read: Sequence[Item]) -> Sequence[Item]:
        """What is looked up and made outside of the transaction."""
        self._scope.load(read)
        self._ensure_days(read)
        return read

    def _transact(
        self,
        moves: Sequence[Move],
        read: Sequence[Item],
        rejections: list[Rejection],
        write: Callable[[Transaction, Sequence[Item], Facts], list[Written]],
    ) -> Written:
        with self._counting.transaction() as transaction:
            transaction.move_offsets(moves)
            whose = {item.organisation for item in read} | {rejection.organisation for rejection in rejections}
            existing = transaction.lock_organisations(whose)
            forgotten = Forgotten(transaction.forgotten(whose, strangers(rejections)))
            facts = Facts(existing, transaction.horizon(), forgotten)
            batch = accounting.together([Written(rejections, Counter()), *write(transaction, read, facts)])
            transaction.reject(accounting.rejected_row(forgotten.rejection(one)) for one in batch.rejections)
            transaction.add(t.ledger, {key: [n] for key, n in batch.outcomes.items()})
            weighed = self._limit.weigh(accounting.fates(read, batch.rejections))
        self._limit.keep(weighed)
        return batch

    def _write_whole(self, transaction: Transaction, read: Sequence[Item], facts: Facts) -> list[Written]:
        return [self._write(transaction, read, facts)]

    def _write_parts(self, transaction: Transaction, read: Sequence[Item], facts: Facts) -> list[Written]:
        def attempt(part: Sequence[Item]) -> Written:
            with transaction.part():
                return self._write(transaction, part, facts)

        written, failed = self._bisected(read, attempt)
        return [*written, Written(accounting.set_aside(read, failed), Counter())]

    def _bisected(self, read: Sequence[Item], attempt: Callable[[Sequence[Item]], R]) -> tuple[list[R], list[Failed]]:
        try:
            return bisect(read, attempt, NOBODYS, self._limit.in_a_row)
        except AllFail as error:
            raise accounting.too_many_fail(read, error) from error

    def _write(self, transaction: Transaction, read: Sequence[Item], facts: Facts) -> Written:
        rejections: list[Rejection] = []
        accepted: list[tuple[Item, clock.Happened]] = []
        for item in read:
            when = clock.happened(item)
            problem = self._scope.problem(item) if item.organisation in facts.organisations else "unknown_organisation"
            if problem is None and (when.too_old or clock.memory(item).day < facts.horizon):
                problem = "too_old"
            if problem is None:
                accepted.append((facts.forgotten.item(item), when))
            else:
                rejections.append(items.reject(item, problem))
        new = _new(transaction, [item for item, _ in accepted])
        fresh = [(item, when) for item, when in accepted if item.place in new]
        _count(transaction, _named(transaction, fresh), self._scope)
        return Written(
            rejections,
            accounting.outcomes_of((item for item, _ in accepted), new),
            clamped=sum(when.clamped for _, when in fresh),
            late=sum(item.received - when.at > clock.HOUR for item, when in fresh),
        )

    def _ensure_days(self, read: Sequence[Item]) -> None:
        missing = {clock.memory(item).day for item in read} - self._days
        if missing:
            create_day_partitions(self._engine, missing)
            self._days = {day for day in self._days | missing if day >= max(missing) - 2 * clock.WINDOW_DAYS}


def _moves(records: Sequence[Record], expected: Mapping[TopicPartition, int]) -> list[Move]:
    ends: dict[TopicPartition, Record] = {}
    for record in records:
        ends[TopicPartition(record.topic, record.partition)] = record
    return [Move(*tp, expected[tp], last.offset + 1, last.timestamp) for tp, last in ends.items()]


def _new(transaction: Transaction, accepted: list[Item]) -> set[Place]:
    """The places of the events whose ids were not in; of several with one id in this batch, the first."""
    first: dict[tuple[str, str], Item] = {}
    for item in accepted:
        first.setdefault((item.organisation, item.id), item)
    days = {key: clock.memory(item) for key, item in first.items()}
    before = transaction.seen_on_any_day(key for key, day in days.items() if day.everywhere)
    entered = [(key[0], day.day, key[1]) for key, day in days.items() if key not in before]
    before |= transaction.add_seen(entered)
    return {item.place for key, item in first.items() if key not in before}


def _named(transaction: Transaction, new: list[tuple[Item, clock.Happened]]) -> list[Counted]:
    wanted: dict[str, set[str]] = {}
    for item, _ in new:
        if item.event is not None and item.event.type == "custom" and item.event.name:
            wanted.setdefault(item.organisation, set()).add(item.event.name)
    admitted = transaction.admit_names(wanted, CUSTOM_NAMES) if wanted else set()
    counted = []
    for item, when in new:
        name = None
        if item.event is not None and item.event.type == "custom" and item.event.name:
            name = item.event.name if (item.organisation, item.event.name) in admitted else t.OTHER_NAMES
        counted.append(Counted(item, when.at, name))
    return counted


def _count(transaction: Transaction, counted: list[Counted], scope: Scope) -> None:
    keys = {key for c in counted if (key := session_key(c.item)) is not None}
    folded: Folded = fold(counted, transaction.sessions(keys), scope.positions)
    transaction.save_sessions(folded.sessions)
    transaction.add(t.counts, folded.counts)
    transaction.add(t.custom_events, folded.custom_events)
    transaction.add(t.cohorts, folded.cohorts)
    transaction.add(t.cohort_steps, folded.cohort_steps)
    transaction.merge_sketches(folded.sketches, merge)
    left = small.fold(counted)
    for table, rows in left.latest.items():
        transaction.keep_latest(table, [rows[key] for key in sorted(rows)])
    transaction.add(t.step_health_days, left.health)
    transaction.save_heartbeats(left.last_seen, HOSTS)
