"""What became of a batch's events: for the ledger, for the table of what is set aside, for metrics, for the limit."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from service import metrics
from workers.bisect import AllFail, Failed
from workers.items import Item, Rejection, reject
from workers.limit import REASONS, Fate, TooMuchPoison

log = logging.getLogger(__name__)

Outcomes = Counter[tuple[str, str, int, str]]
"""Events by organisation, topic, partition and outcome: the ledger's additions."""


class Written(NamedTuple):
    """What a part of a batch came to. `outcomes` are those of what was not set aside."""

    rejections: list[Rejection]
    outcomes: Outcomes
    clamped: int = 0
    late: int = 0


def outcomes_of(accepted: Sequence[Item], new: Sequence[Item]) -> Outcomes:
    """Counted where the id was new, else duplicate. `new` are some of the accepted."""
    outcomes: Outcomes = Counter()
    consumed = Counter([item.account for item in accepted])
    counted = consumed if len(new) == len(accepted) else Counter([item.account for item in new])
    for of, events in consumed.items():
        outcomes[*of, "consumed"] = events
        for outcome, n in (("counted", counted[of]), ("duplicate", events - counted[of])):
            if n:
                outcomes[*of, outcome] = n
    return outcomes


def together(written: Iterable[Written]) -> Written:
    """The parts of a batch as one, with the outcomes of what was set aside."""
    rejections: list[Rejection] = []
    outcomes: Outcomes = Counter()
    clamped = late = 0
    for part in written:
        rejections += part.rejections
        outcomes.update(part.outcomes)
        clamped, late = clamped + part.clamped, late + part.late
    for rejection in rejections:
        of = rejection.organisation, rejection.place.topic, rejection.place.partition
        outcomes[*of, "consumed"] += rejection.events
        outcomes[*of, f"rejected:{rejection.reason}"] += rejection.events
    return Written(rejections, outcomes, clamped, late)


def rejected_row(rejection: Rejection) -> dict[str, object]:
    """Of the table `rejected`."""
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


def set_aside(items: Sequence[Item], failed: Iterable[Failed]) -> list[Rejection]:
    """What fails alone, as poison. Logs each without its content."""
    rejections = []
    for at, error in failed:
        place = items[at].place
        log.error("an event cannot be counted and is set aside", extra=place._asdict() | {"kind": _kind(error)})
        rejections.append(reject(items[at], "poison"))
    return rejections


def too_many_fail(items: Sequence[Item], error: AllFail) -> TooMuchPoison:
    """Names where the row of failures is, and what failed."""
    first, last = (items[failed.at].place for failed in (error.failed[0], error.failed[-1]))
    kinds = Counter(_kind(failed.error) for failed in error.failed)
    listed = ", ".join(f"{kind}: {n}" for kind, n in kinds.most_common())
    where = f"from {first.topic}[{first.partition}] offset {first.offset} "
    where += f"to {last.topic}[{last.partition}] offset {last.offset}"
    return TooMuchPoison(f"{len(error.failed)} events in a row fail ({listed}), {where}", "ZENSTEP_POISON_IN_A_ROW")


def fates(items: Sequence[Item], batch: Written) -> Iterator[Fate]:
    """Of a batch's events, in the order of each partition. Where none is poison, one fate for many events."""
    if not any(rejection.reason in REASONS for rejection in batch.rejections):
        counts: Counter[tuple[str, int]] = Counter()
        for (_, topic, partition, outcome), events in batch.outcomes.items():
            if outcome == "consumed":
                counts[topic, partition] += events
        for (topic, partition), events in counts.items():
            yield Fate(topic, partition, -1, None, events)
        return
    aside = {rejection.place: rejection for rejection in batch.rejections}
    for place in sorted({item.place for item in items} | set(aside)):
        rejection = aside.get(place)
        reason, events = (rejection.reason, rejection.events) if rejection else (None, 1)
        yield Fate(place.topic, place.partition, place.offset, reason, events)


def observe(batch: Written) -> None:
    """After the commit, so that a batch put off is not counted twice in the metrics."""
    for (_, topic, _, outcome), events in batch.outcomes.items():
        name, _, reason = outcome.partition(":")
        if name == "consumed":
            metrics.events_consumed.labels(topic).inc(events)
        elif name == "counted":
            metrics.events_counted.labels(topic).inc(events)
        elif name == "duplicate":
            metrics.events_duplicate.labels(topic).inc(events)
        else:
            metrics.events_rejected.labels(topic, reason).inc(events)
    consumed = sum(n for (*_, outcome), n in batch.outcomes.items() if outcome == "consumed")
    metrics.batch_events.observe(consumed)
    metrics.events_clamped.inc(batch.clamped)
    metrics.events_late.inc(batch.late)


def _kind(error: Exception) -> str:
    """The type of an error, and the database's code for it. Its text may have the event's content."""
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None)
    return f"{type(original or error).__name__}{f' {state}' if state else ''}"
