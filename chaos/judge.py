"""The verdict on a round: every 2xx event counted exactly once, every other at most once, every sum as it must be."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from chaos.books import Books, Ledger
from chaos.topics import Offsets
from chaos.traffic import World
from readers import ranges
from schemas import tables as t
from tests.worlds import analytics, modelled

DAY = 86_400_000
EXACT_BELOW = 200  # documented: distinct users are exact below it
MOST_NAMED = 5  # examples in a problem's text


class Stored(NamedTuple):
    """What the store says of everything, at one instant. `seen` and `rejected` are of the round's organisations."""

    offsets: Offsets
    ledger: Ledger
    seen: Mapping[str, set[str]]
    rejected: Ledger


class Verdict(NamedTuple):
    """`lost` are acknowledged events that are nowhere; `doubled`, what was counted or consumed more than once."""

    lost: int
    doubled: int
    problems: list[str]


def read_store(engine: sa.Engine, organisations: Sequence[str]) -> Stored:
    """In one snapshot."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        offsets = connection.execute(sa.select(t.offsets.c.topic, t.offsets.c.partition, t.offsets.c.next_offset))
        ledger = connection.execute(sa.select(*t.ledger.c))
        s, r = t.seen.c, t.rejected.c
        seen = connection.execute(sa.select(s.organisation_id, s.event_id).where(s.organisation_id.in_(organisations)))
        outcome = sa.literal("rejected:") + r.reason
        rejected = connection.execute(
            sa.select(r.organisation_id, r.topic, r.partition, outcome, sa.func.count())
            .where(r.organisation_id.in_(organisations))
            .group_by(r.organisation_id, r.topic, r.partition, outcome)
        )
        ids: dict[str, set[str]] = {organisation: set() for organisation in organisations}
        for organisation, event in seen:
            ids[organisation].add(str(event))
        return Stored(
            {(topic, partition): offset for topic, partition, offset in offsets},
            Ledger({tuple(row[:-1]): row[-1] for row in ledger}),
            ids,
            Ledger({tuple(row[:-1]): row[-1] for row in rejected}),
        )


def judge(books: Books, stored: Stored, acknowledged: Mapping[str, set[str]]) -> Verdict:
    """`acknowledged` are the ids that a 2xx was given for, by organisation. Pure."""
    problems: list[str] = []
    lost = doubled = 0
    for organisation, seen in stored.seen.items():
        promised = acknowledged.get(organisation, set())
        missing = promised - seen - books.rejected[organisation]
        lost += len(missing)
        if missing:
            problems.append(f"{len(missing)} acknowledged events of {organisation} were lost: {_some(missing)}")
        unbooked = seen ^ books.counted[organisation]
        if unbooked:
            problems.append(
                f"{len(unbooked)} ids of {organisation} are counted or not against the topics: {_some(unbooked)}"
            )
        counted = _sum(stored.ledger, organisation, "counted")
        if counted > len(seen):
            doubled += counted - len(seen)
            problems.append(f"{organisation} has {counted} events counted, of {len(seen)} ids")
        set_aside = {key: n for key, n in stored.rejected.items() if key[0] == organisation}
        booked = {key: n for key, n in books.rows.items() if key[0] == organisation}
        if set_aside != booked:
            problems.append(f"rejected of {organisation} are {_told(set_aside)}, should be {_told(booked)}")
    consumed, in_topics = _consumed(stored.ledger), _consumed(books.ledger)
    for partition in sorted(consumed.keys() | in_topics.keys()):
        here, there = consumed.get(partition, 0), in_topics.get(partition, 0)
        doubled += max(0, here - there)
        if here != there:
            problems.append(f"{partition[0]}[{partition[1]}] has {there} events, consumed are {here}")
    problems += _unequal(stored.ledger, books.ledger)
    return Verdict(lost, doubled, problems)


def judge_analytics(engine: sa.Engine, world: World, books: Books, now: int) -> list[str]:
    """Each flow's numbers against the model's. `now` is epoch ms."""
    start, end = now // DAY * DAY - 9 * DAY, now // DAY * DAY + DAY
    chosen = ranges.parse(_date(start), _date(end), "day", "UTC", datetime.fromtimestamp(now / 1000, UTC))
    problems = []
    for flow in (flow for flows in world.flows for flow in flows):
        found = modelled(analytics(engine, flow, chosen))
        model = books.models[flow.organisation]
        expected = model.analytics(flow.organisation, flow.flow_id, start, end, "day", chosen.zone)
        problems += [f"analytics of {flow.flow_id}{said}" for said in differences(found, expected)]
    return problems


def differences(found: Any, expected: Any, path: str = "") -> list[str]:
    """Where two documents are not equal. Distinct users are a sketch's from EXACT_BELOW on, so near."""
    if isinstance(expected, Mapping):
        if found.keys() != expected.keys():
            return [f"{path} has {sorted(found)}, should have {sorted(expected)}"]
        return [said for name in expected for said in differences(found[name], expected[name], f"{path}.{name}")]
    if isinstance(expected, list):
        if len(found) != len(expected):
            return [f"{path} has {len(found)}, should have {len(expected)}"]
        return [
            said
            for number, (one, other) in enumerate(zip(found, expected, strict=True))
            for said in differences(one, other, f"{path}[{number}]")
        ]
    if path.endswith("uniqueUsers") and expected >= EXACT_BELOW:
        return [] if abs(found - expected) <= 0.04 * expected else [f"{path} is {found}, should be near {expected}"]
    return [] if found == expected else [f"{path} is {found}, should be {expected}"]


def _unequal(ledger: Ledger, booked: Ledger) -> list[str]:
    """Line by line, and each consumed against its parts."""
    wrong = [
        f"{key} is {ledger.get(key, 0)}, should be {booked.get(key, 0)}"
        for key in sorted(ledger.keys() | booked.keys())
        if ledger.get(key, 0) != booked.get(key, 0)
    ]
    sums = {
        outcome: sum(n for key, n in ledger.items() if (key[3] == "consumed") == outcome) for outcome in (True, False)
    }
    if sums[True] != sums[False]:
        wrong.append(f"consumed are {sums[True]}, counted, duplicate and rejected are {sums[False]}")
    return [f"ledger: {said}" for said in wrong]


def _told(rows: Mapping[tuple[str, str, int, str], int]) -> str:
    return ", ".join(
        f"{topic}[{partition}] {outcome} {n}" for (_, topic, partition, outcome), n in sorted(rows.items())
    )


def _consumed(ledger: Ledger) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    for (_, topic, partition, outcome), n in ledger.items():
        if outcome == "consumed":
            found[topic, partition] = found.get((topic, partition), 0) + n
    return found


def _sum(ledger: Ledger, organisation: str, outcome: str) -> int:
    return sum(n for key, n in ledger.items() if key[0] == organisation and key[3] == outcome)


def _some(ids: set[str]) -> str:
    return ", ".join(sorted(ids)[:MOST_NAMED])


def _date(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).date().isoformat()
