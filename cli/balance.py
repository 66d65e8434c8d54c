"""What must agree in the books, as pure comparisons: each that does not is a Break."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from backends.log import TopicPartition
from backends.store.accounts import PARKED, Books, Cells, Place, Whose
from backends.store.offsets import own_name
from schemas import records
from schemas.tables import GRAINS


class Break(NamedTuple):
    """Where two numbers do not agree. What is not of one organisation, topic or partition has None there."""

    organisation: str | None
    topic: str | None
    partition: int | None
    what: str
    found: int
    expected: int

    def __str__(self) -> str:
        where = [part for part in (self.organisation, self.topic) if part is not None]
        if self.partition is not None:
            where[-1] += f"[{self.partition}]"
        difference = f"{self.found - self.expected:+,}"
        return f"{' '.join(where)}: {self.what}: {self.found:,} instead of {self.expected:,} ({difference})"


class Sums(NamedTuple):
    """Events, over all that was looked at."""

    acknowledged: int
    spooled: int
    flushed: int
    in_spools: int  # spooled, and no edge has said yet that it flushed them
    consumed: int
    counted: int
    duplicate: int
    rejected: int

    @property
    def accepted(self) -> int:
        return self.acknowledged + self.spooled


def sums(accepted: Mapping[Place, int], books: Books) -> Sums:
    """An edge that was killed may have said less than it did, so `flushed` may be more than `spooled`."""
    spools: dict[tuple[str, str], int] = {}
    for (organisation, topic, _, outcome), events in accepted.items():
        sign = {"spooled": 1, "flushed": -1}.get(outcome, 0)
        spools[organisation, topic] = spools.get((organisation, topic), 0) + sign * events

    def promised(outcome: str) -> int:
        return sum(events for (*_, of), events in accepted.items() if of == outcome)

    def became(outcome: str) -> int:
        return sum(outcomes.get(outcome, 0) for outcomes in books.ledger.values())

    return Sums(
        acknowledged=promised("acknowledged"),
        spooled=promised("spooled"),
        flushed=promised("flushed"),
        in_spools=sum(events for events in spools.values() if events > 0),
        consumed=became("consumed"),
        counted=became("counted"),
        duplicate=became("duplicate"),
        rejected=sum(_rejected(outcomes) for outcomes in books.ledger.values()),
    )


def unkept_promises(
    accepted: Mapping[Place, int], books: Books, topics: set[str], spools_empty: bool
) -> Iterator[Break]:
    """What the log promised to the edges and never came to the ledger, once workers have passed it.

    More may be consumed than was promised: what an edge did not live to say, and lines put into the log twice.
    """
    in_log: dict[Whose, int] = {}
    in_all: dict[tuple[str, str], int] = {}
    for (organisation, topic, partition, outcome), events in accepted.items():
        if topic in topics and outcome in ("acknowledged", "flushed"):
            whose = (organisation, topic, partition)
            in_log[whose] = in_log.get(whose, 0) + events
        if topic in topics and outcome in ("acknowledged", "spooled"):
            in_all[organisation, topic] = in_all.get((organisation, topic), 0) + events
    consumed_of = _consumed(books)
    for whose, events in sorted(in_log.items()):
        consumed = consumed_of.get(whose, 0)
        if consumed < events:
            yield Break(*whose, "events consumed that edges put into the log", consumed, events)
    for (organisation, topic), events in sorted(in_all.items() if spools_empty else ()):
        consumed = sum(n for whose, n in consumed_of.items() if whose[:2] == (organisation, topic))
        if consumed < events:
            what = "events consumed that edges accepted, their spools being empty"
            yield Break(organisation, topic, None, what, consumed, events)


def _consumed(books: Books) -> dict[Whose, int]:
    """Of a topic that was made anew and of those before it together, as edges know it."""
    consumed: dict[Whose, int] = {}
    for (organisation, topic, partition), outcomes in books.ledger.items():
        whose = (organisation, own_name(topic), partition)
        consumed[whose] = consumed.get(whose, 0) + outcomes.get("consumed", 0)
    return consumed


def within_the_store(books: Books) -> Iterator[Break]:
    """What one transaction writes in several tables."""
    for whose, outcomes in sorted(books.ledger.items()):
        parts = sum(events for outcome, events in outcomes.items() if outcome != "consumed")
        consumed = outcomes.get("consumed", 0)
        if parts != consumed:
            yield Break(*whose, "events counted, duplicate or rejected of those consumed", parts, consumed)
    yield from _rejected_rows(books)
    counted = _by_organisation(books, "")
    pruned = _pruned(books, "seen")
    for organisation in sorted(counted.keys() | books.seen.keys() | pruned.keys()):
        rows = books.seen.get(organisation, 0) + pruned.get(organisation, 0)
        events = counted.get(organisation, 0)
        if rows != events:
            yield Break(organisation, None, None, "ids seen (with those pruned) of events counted", rows, events)
    yield from _cells(books)


def _rejected_rows(books: Books) -> Iterator[Break]:
    pruned = {(o, topic, p): rows for (table, o, topic, p), rows in books.pruned.items() if table == "rejected"}
    for whose in sorted(books.ledger.keys() | books.rejected.keys() | pruned.keys()):
        outcomes = books.ledger.get(whose, {})
        events = _rejected(outcomes) - sum(outcomes.get(f"rejected:{reason}", 0) for reason in PARKED)
        rows = books.rejected.get(whose, 0) + pruned.get(whose, 0)
        if rows != events:
            yield Break(*whose, "rows of rejected events (with those pruned)", rows, events)


def _cells(books: Books) -> Iterator[Break]:
    """Every event of the events topic stands in one cell of each grain, and so does every session."""
    counted = _by_organisation(books, f".{records.EVENTS}")
    pruned = _pruned(books, "sessions")
    sessions = {o: books.sessions.get(o, 0) + pruned.get(o, 0) for o in books.sessions.keys() | pruned.keys()}
    for grain in GRAINS:
        events = {
            organisation: books.counts.get((organisation, grain), 0) + books.custom_events.get((organisation, grain), 0)
            for organisation, _ in books.counts.keys() | books.custom_events.keys()
        }
        yield from _differences(f"events in the cells of {grain} s of those counted", events, counted)
        in_cells = _of_grain(books.cohort_sessions, grain)
        yield from _differences(f"sessions in the cells of {grain} s of those known (with pruned)", in_cells, sessions)
    for what, cells in (("starts", books.cohort_starts), ("sessions of steps", books.cohort_steps)):
        fine, coarse = (_of_grain(cells, grain) for grain in GRAINS)
        yield from _differences(f"{what} in the cells of {GRAINS[1]} s of those in {GRAINS[0]} s", coarse, fine)


def _differences(what: str, found: Mapping[str, int], expected: Mapping[str, int]) -> Iterator[Break]:
    for organisation in sorted(found.keys() | expected.keys()):
        one, other = found.get(organisation, 0), expected.get(organisation, 0)
        if one != other:
            yield Break(organisation, None, None, what, one, other)


def with_the_log(read: Mapping[TopicPartition, Mapping[str, int]], books: Books) -> Iterator[Break]:
    """`read` holds the events of each organisation that are in these partitions before the store's offsets."""
    for tp, in_log in sorted(read.items()):
        in_ledger = {
            organisation: outcomes.get("consumed", 0)
            for (organisation, topic, partition), outcomes in books.ledger.items()
            if (topic, partition) == tp
        }
        for one in _differences("events consumed of those in the log", in_ledger, in_log):
            yield one._replace(topic=tp.topic, partition=tp.partition)


def _rejected(outcomes: Mapping[str, int]) -> int:
    return sum(events for outcome, events in outcomes.items() if outcome.startswith("rejected:"))


def _by_organisation(books: Books, topics_end: str) -> dict[str, int]:
    """Events counted, of topics whose name ends so."""
    found: dict[str, int] = {}
    for (organisation, topic, _), outcomes in books.ledger.items():
        if own_name(topic).endswith(topics_end):
            found[organisation] = found.get(organisation, 0) + outcomes.get("counted", 0)
    return found


def _pruned(books: Books, table: str) -> dict[str, int]:
    """Rows of a table that has them by organisation alone."""
    return {organisation: rows for (of, organisation, _, _), rows in books.pruned.items() if of == table}


def _of_grain(cells: Cells, grain: int) -> dict[str, int]:
    return {organisation: n for (organisation, of), n in cells.items() if of == grain}
