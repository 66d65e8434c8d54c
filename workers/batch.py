"""One batch, from records to the commit: read, scope, then everything in one transaction.

This is where exactly once is kept: the offset moves by compare-and-set, ids are entered and the events that were new
are counted, all or nothing. Whatever is killed when, the store holds a batch whole or not at all.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from backends.log import Record, TopicPartition
from backends.store.catalog import Catalog
from backends.store.counting import Counting, Move, Transaction
from backends.store.migrate import create_day_partitions
from schemas import tables as t
from service import metrics
from workers import clock, items, small
from workers.fold import Counted, Folded, fold, merge, session_key
from workers.items import Item, Rejection
from workers.scope import Scope

log = logging.getLogger(__name__)

CUSTOM_NAMES = 1000  # an organisation's; further names are counted as (other) (our decision)
HOSTS = 100  # an organisation's; those seen longest ago are forgotten (our decision)

Outcomes = Counter[tuple[str, str, int, str]]
"""Events by organisation, topic, partition and outcome: the ledger's additions."""


class Batches:
    """Applies batches. Raises OffsetMoved for a partition that moved on without us, SQLAlchemy's errors otherwise."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._counting = Counting(engine)
        self._scope = Scope(Catalog(engine).flows)
        self._days: set[int] = set()

    def apply(self, records: Sequence[Record], expected: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Counts these records and moves the offsets from `expected`; returns where they now stand.

        Records below the expected offset are left out: they are counted already.
        """
        fresh = [r for r in records if r.offset >= expected[TopicPartition(r.topic, r.partition)]]
        moves = _moves(fresh, expected)
        read, rejections = items.read(fresh)
        self._scope.load(read)
        self._ensure_days(read)
        with metrics.batch_seconds.time(), self._counting.transaction() as transaction:
            transaction.move_offsets(moves)
            outcomes = self._write(transaction, read, rejections)
        self._scope.trim()
        _observe(outcomes)
        return {TopicPartition(move.topic, move.partition): move.following for move in moves}

    def _write(self, transaction: Transaction, read: list[Item], poison: list[Rejection]) -> Outcomes:
        existing = transaction.lock_organisations(item.organisation for item in read)
        horizon = transaction.horizon()
        rejections = list(poison)
        accepted: list[tuple[Item, clock.Happened]] = []
        for item in read:
            when = clock.happened(item)
            problem = "unknown_organisation" if item.organisation not in existing else self._scope.problem(item)
            if problem is None and (when.too_old or clock.memory(item).day < horizon):
                problem = "too_old"
            if problem is None:
                accepted.append((item, when))
            else:
                rejections.append(items.reject(item, problem))
        new = _new(transaction, [item for item, _ in accepted])
        counted = _named(transaction, [(item, when) for item, when in accepted if item.place in new])
        _count(transaction, counted, self._scope)
        transaction.reject(_rejected_row(rejection) for rejection in rejections)
        outcomes = _outcomes(rejections, [item for item, _ in accepted], new)
        transaction.add(t.ledger, {key: [n] for key, n in outcomes.items()})
        for item, when in accepted:
            if item.place in new:
                metrics.events_clamped.inc(when.clamped)
                metrics.events_late.inc(item.received - when.at > clock.HOUR)
        return outcomes

    def _ensure_days(self, read: list[Item]) -> None:
        missing = {clock.memory(item).day for item in read} - self._days
        if missing:
            create_day_partitions(self._engine, missing)
            self._days = {day for day in self._days | missing if day >= max(missing) - 2 * clock.WINDOW_DAYS}


def _moves(records: Sequence[Record], expected: Mapping[TopicPartition, int]) -> list[Move]:
    ends: dict[TopicPartition, Record] = {}
    for record in records:
        ends[TopicPartition(record.topic, record.partition)] = record
    return [Move(*tp, expected[tp], last.offset + 1, last.timestamp) for tp, last in ends.items()]


def _new(transaction: Transaction, accepted: list[Item]) -> set[items.Place]:
    """The places of the events whose ids were not in; of several with one id in this batch, the first."""
    first: dict[tuple[str, str], Item] = {}
    for item in accepted:
        first.setdefault((item.organisation, item.id), item)
    days = {key: clock.memory(item) for key, item in first.items()}
    before = transaction.seen_on_any_day(key for key, day in days.items() if day.everywhere)
    entered = transaction.add_seen((key[0], day.day, key[1]) for key, day in days.items() if key not in before)
    return {first[key].place for key in entered}


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


def _outcomes(rejections: list[Rejection], accepted: list[Item], new: set[items.Place]) -> Outcomes:
    outcomes: Outcomes = Counter()
    for rejection in rejections:
        place = rejection.place
        outcomes[rejection.organisation, place.topic, place.partition, "consumed"] += 1
        outcomes[rejection.organisation, place.topic, place.partition, f"rejected:{rejection.reason}"] += 1
    for item in accepted:
        outcome = "counted" if item.place in new else "duplicate"
        outcomes[item.organisation, item.place.topic, item.place.partition, "consumed"] += 1
        outcomes[item.organisation, item.place.topic, item.place.partition, outcome] += 1
    return outcomes


def _rejected_row(rejection: Rejection) -> dict[str, object]:
    place = rejection.place
    return {
        "organisation_id": rejection.organisation,
        "topic": place.topic,
        "partition": place.partition,
        "record_offset": place.offset,
        "line": place.line,
        "event": place.event,
        "reason": rejection.reason,
        "received_at": rejection.received,
        "body": rejection.body,
    }


def _observe(outcomes: Outcomes) -> None:
    """After the commit, so that a batch put off is not counted twice in the metrics."""
    for (_, topic, _, outcome), events in outcomes.items():
        name, _, reason = outcome.partition(":")
        if name == "consumed":
            metrics.events_consumed.labels(topic).inc(events)
        elif name == "counted":
            metrics.events_counted.labels(topic).inc(events)
        elif name == "duplicate":
            metrics.events_duplicate.labels(topic).inc(events)
        else:
            metrics.events_rejected.labels(topic, reason).inc(events)
    metrics.batch_events.observe(sum(n for (*_, outcome), n in outcomes.items() if outcome == "consumed"))
