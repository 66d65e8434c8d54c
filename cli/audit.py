"""`zenstep audit`: whether every event that an edge accepted is in the numbers exactly once."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple, ParamSpec, TypeVar

import click

from backends.log import OffsetOutOfRange, Reader, TopicPartition, open_reader
from backends.store.accounts import Accounts, Books
from cli import balance
from cli.balance import Break, Sums
from cli.output import catalog, command, json_option, show, store
from cli.parameters import UUID
from schemas.topics import Topics
from service.settings import load
from workers import items

P = ParamSpec("P")
R = TypeVar("R")

POLL_SECONDS = 0.2
READ_RECORDS = 100


class CannotTell(click.ClickException):
    """Exit code 1 says that the books do not agree; what keeps them from being read must not say so."""

    exit_code = 2


def _unable(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except click.ClickException as error:
            raise CannotTell(error.message) from None

    return wrapped


class Bounds(NamedTuple):
    """A partition's first offset and the one its next record will have, as the log says."""

    first: int
    end: int


class Found(NamedTuple):
    """What the audit came to."""

    sums: Sums
    waiting: int  # records that the store has not passed
    breaks: list[Break]
    behind: dict[TopicPartition, int]  # records lacking of those there at the beginning, where workers did not come
    cut: list[TopicPartition]  # not compared with the log, since it has lost its beginning

    @property
    def holds(self) -> bool | None:
        return False if self.breaks else None if self.behind else True

    def lines(self) -> list[str]:
        rows = [
            ("accepted by edges", self.sums.accepted),
            ("  acknowledged by the log", self.sums.acknowledged),
            ("  spooled", self.sums.spooled),
            ("    flushed into the log", self.sums.flushed),
            ("    still in spools", self.sums.in_spools),
            ("consumed", self.sums.consumed),
            ("  counted", self.sums.counted),
            ("  duplicate", self.sums.duplicate),
            ("  rejected", self.sums.rejected),
            ("records not yet consumed", self.waiting),
        ]
        return [
            *(f"{name:26} {number:>14,}" for name, number in rows),
            *(f"{tp.topic}[{tp.partition}] has lost its beginning: not compared" for tp in self.cut),
            *map(str, self.breaks),
            *(f"{tp.topic}[{tp.partition}] is {records:,} records behind" for tp, records in self.behind.items()),
            {True: "holds", False: "DOES NOT HOLD", None: "cannot tell: workers are behind"}[self.holds],
        ]

    def document(self) -> dict[str, Any]:
        return {
            "holds": self.holds,
            "events": {"accepted": self.sums.accepted, **self.sums._asdict()},
            "records_waiting": self.waiting,
            "breaks": [one._asdict() for one in self.breaks],
            "behind": [{**tp._asdict(), "records": records} for tp, records in self.behind.items()],
            "not_compared": [tp._asdict() for tp in self.cut],
        }


@click.command()
@click.option("--org", "organisation", type=UUID, help="Of this organisation alone.")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long workers may take to come to where the log ends now.",
)
@click.option("--spools-empty", is_flag=True, help="What was spooled must be counted too: no edge has any left.")
@click.option("--read-log", is_flag=True, help="Compare with what is in the topics, where they are whole.")
@json_option
@_unable
@command
def audit(organisation: str | None, wait: float, spools_empty: bool, read_log: bool, as_json: bool) -> None:
    """Check that what edges accepted is in the numbers exactly once.

    May run at any time, also while events come in. Exit code 1 where it does not hold, with a line for each place; 2
    where it cannot be told, as when workers are behind.
    """
    settings = load()
    accounts = Accounts(store())
    with closing(open_reader(settings.log_url)) as log:
        found = _audit(accounts, log, Topics(settings.topic_prefix).all(), organisation, wait, spools_empty, read_log)
    if organisation is not None and not found.sums.accepted + found.sums.consumed:
        catalog().require_organisation(organisation)
    show(found.document(), as_json, "\n".join(found.lines()))
    if not found.holds:
        raise click.exceptions.Exit(1 if found.breaks else CannotTell.exit_code)


def _audit(
    accounts: Accounts,
    log: Reader,
    topics: list[str],
    organisation: str | None,
    wait: float,
    spools_empty: bool,
    read_log: bool,
) -> Found:
    """In this order: what was promised before the ends were read lies before them, and then before the offsets."""
    accepted = accounts.accepted(organisation)
    bounds = _bounds(log, topics)
    behind = _wait(accounts, bounds, wait)
    books = accounts.books(organisation)
    after = _bounds(log, topics)
    breaks = [*_off_the_log(books, bounds, after), *balance.within_the_store(books)]
    if not behind:
        breaks += balance.unkept_promises(accepted, books, set(topics), spools_empty)
    read, cut = _read(log, books, after, organisation) if read_log else ({}, [])
    breaks += balance.with_the_log(read, books)
    waiting = sum(max(0, bound.end - books.offsets.get(tp, bound.first)) for tp, bound in after.items())
    return Found(balance.sums(accepted, books), waiting, breaks, behind, cut)


def _bounds(log: Reader, topics: list[str]) -> dict[TopicPartition, Bounds]:
    partitions = [TopicPartition(topic, p) for topic in topics for p in range(log.partitions(topic))]
    first, end = log.beginning_offsets(partitions), log.end_offsets(partitions)
    return {tp: Bounds(first[tp], end[tp]) for tp in partitions}


def _wait(accounts: Accounts, bounds: Mapping[TopicPartition, Bounds], seconds: float) -> dict[TopicPartition, int]:
    """Until the store has passed these ends; how many records which partition lacks when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        offsets = accounts.offsets()
        # A worker begins a partition that it has never had at the log's first offset.
        lacking = {tp: bound.end - offsets.get(tp, bound.first) for tp, bound in bounds.items()}
        behind = {tp: records for tp, records in lacking.items() if records > 0}
        if not behind or time.monotonic() >= deadline:
            return behind
        time.sleep(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))


def _off_the_log(
    books: Books, before: Mapping[TopicPartition, Bounds], after: Mapping[TopicPartition, Bounds]
) -> Iterator[Break]:
    """Where the store stands outside of what the log has: workers cannot go on there without a loss."""
    for tp, offset in sorted(books.offsets.items()):
        place = TopicPartition(*tp)
        if place in before and offset < before[place].first:
            yield Break(
                None,
                *tp,
                "records removed from the log before they were counted: the store is at offset",
                offset,
                before[place].first,
            )
        if place in after and offset > after[place].end:
            yield Break(None, *tp, "the store is beyond the log's end at offset", offset, after[place].end)


def _read(
    log: Reader, books: Books, bounds: Mapping[TopicPartition, Bounds], organisation: str | None
) -> tuple[dict[TopicPartition, dict[str, int]], list[TopicPartition]]:
    """Events by organisation before the store's offset, and the partitions whose beginning is gone."""
    found: dict[TopicPartition, dict[str, int]] = {}
    cut = []
    for tp in sorted(bounds):
        try:
            if bounds[tp].first > 0:
                raise OffsetOutOfRange
            found[tp] = _events(log, tp, min(books.offsets.get(tp, 0), bounds[tp].end))
        except OffsetOutOfRange:
            cut.append(tp)
    if organisation is not None:
        found = {tp: {o: n for o, n in events.items() if o == organisation} for tp, events in found.items()}
    return found, cut


def _events(log: Reader, partition: TopicPartition, end: int) -> dict[str, int]:
    """As a worker reads them. Raises OffsetOutOfRange."""
    events: Counter[str] = Counter()
    offset = 0
    while offset < end:
        batch = log.read(partition, offset, READ_RECORDS)
        if not batch:
            break
        offset = batch[-1].offset + 1
        good, poison = items.read(record for record in batch if record.offset < end)
        events.update(item.organisation for item in good)
        for rejection in poison:
            events[rejection.organisation] += rejection.events
    return dict(events)
