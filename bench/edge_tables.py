"""The edge's figures as tables. Pure: from what was measured to text."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from bench.edge_measure import Latency, Load, Saturated, middle, ratio
from bench.edge_subjects import FASTAPI, OURS, OURS_ALONE, OURS_TWO
from bench.results import Table, table


class Measured(NamedTuple):
    """All servers under one load: the rounds of each, its latencies, and one edge beside two at twice its rate."""

    load: Load
    rounds: dict[str, list[Saturated]]
    latencies: dict[str, list[Latency]]
    doubled: Sequence[tuple[Latency, Latency]] = ()


MAIN_LOAD = 100  # organisations of the summary
SUMMARY_SHARE = 0.6


def tables(found: Sequence[Measured]) -> list[Table]:
    return [table for table in (summary(found), costs(found), latencies(found), shares(found)) if table["rows"]]


def summary(found: Sequence[Measured]) -> Table:
    """One row a server, at 100 organisations."""
    main = [m for m in found if m.load.organisations == MAIN_LOAD and not m.load.kind.gzip]
    columns = ["server"]
    for m in main:
        columns += [f"CPU us a request, {m.load.kind.name}", "of FastAPI's", "p99 ms at 60 % load"]
    rows = []
    for name in dict.fromkeys(name for m in main for name in m.rounds):
        row = [name]
        for m in main:
            row += (
                [f"{middle(m.rounds[name]).cpu:.0f}", _of_fastapi(m, name), _p99(m, name)]
                if name in m.rounds
                else [""] * 3
            )
        rows.append(row)
    note = f"{MAIN_LOAD} organisations. CPU is that of the server's whole process tree, user and system."
    return table("The edge beside other servers", columns, rows, note, headline=True)


def costs(found: Sequence[Measured]) -> Table:
    columns = [
        *("body", "organisations", "server", "CPU us a request", "user", "system", "CPU us an event"),
        *("of FastAPI's", "requests/s", "its core, % busy", "RSS MiB"),
    ]
    rows = []
    for m in found:
        for name, theirs in m.rounds.items():
            cell = middle(theirs)
            rows.append(
                [
                    *(m.load.kind.name, f"{m.load.organisations:,}", name),
                    *(f"{cell.cpu:.0f}", f"{cell.user:.0f}", f"{cell.system:.0f}"),
                    *(f"{cell.cpu / m.load.kind.events:.1f}", _of_fastapi(m, name), f"{cell.rate:,.0f}"),
                    *(f"{cell.busy * 100:.0f}", f"{cell.rss_mib:.0f}"),
                ]
            )
    note = "Closed loop, medians of the rounds. A core that is not busy waits for Kafka, which shares the other core."
    return table("CPU at saturation", columns, rows, note)


def latencies(found: Sequence[Measured]) -> Table:
    columns = [
        "body",
        "organisations",
        "server",
        "load",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "CPU us a request",
    ]
    rows = [
        [
            *(m.load.kind.name, f"{m.load.organisations:,}", name, f"{at.share * 100:.0f} %", f"{at.rate:,.0f}"),
            *(f"{at.p50:.1f}", f"{at.p95:.1f}", f"{at.p99:.1f}", f"{at.cpu:.0f}"),
        ]
        for m in found
        for name, theirs in m.latencies.items()
        for at in theirs
    ]
    note = (
        "Open loop: requests come at random at this rate, whatever the server does, and a latency counts from when its "
        "request was due. The load is a share of the server's own requests/s above. Medians of three measures."
    )
    return table("Latency at a rate", columns, rows, note)


def shares(found: Sequence[Measured]) -> Table:
    """What the parts of ours cost, where they were left out or doubled."""
    rows = []
    for m in found:
        if OURS in m.rounds and OURS_ALONE in m.rounds:
            share = ratio(m.rounds[OURS], m.rounds[OURS_ALONE]) - 1
            rows.append([m.load.kind.name, "limits counted in Redis, over those in memory", f"{share * 100:+.1f} %"])
        if OURS in m.rounds and OURS_TWO in m.rounds:
            share = ratio(m.rounds[OURS_TWO], m.rounds[OURS]) - 1
            rows.append([m.load.kind.name, "two edges that fill one core, over one that does", f"{share * 100:+.1f} %"])
        if m.doubled:
            share = median(two.cpu / one.cpu for one, two in m.doubled) - 1
            part = "two edges at twice the rate of one, over that one"
            rows.append([m.load.kind.name, part, f"{share * 100:+.1f} %"])
    return table("What a part costs", ["body", "part", "CPU a request"], rows)


def _of_fastapi(m: Measured, name: str) -> str:
    return f"{ratio(m.rounds[name], m.rounds[FASTAPI]):.2f}" if FASTAPI in m.rounds else ""


def _p99(m: Measured, name: str) -> str:
    return next((f"{at.p99:.1f}" for at in m.latencies.get(name, []) if at.share == SUMMARY_SHARE), "")
