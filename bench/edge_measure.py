"""One measure of one subject, and rounds of several in turns, so that a busy machine is as bad for each of them."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple, TypeVar

from bench.bodies import Kind
from bench.edge_subjects import Subject
from bench.edge_world import World
from bench.load import Order

CONNECTIONS = 64
"""Of each process that serves: on cores of their own, two have as much to do as one each."""
CLIENTS = 256
"""Connections where requests come at a rate: more than are ever out, unless the server falls behind."""
RATE_ROUNDS = 3
"""Measures at a rate: a stop of the machine's, which is in the p99 of one, is not in that of most."""
DOUBLED_SHARE = 0.35


class Load(NamedTuple):
    """What is sent."""

    kind: Kind
    organisations: int


class Saturated(NamedTuple):
    """As fast as it answers. CPU in microseconds a request, of its process tree; `busy` is its share of a core."""

    user: float
    system: float
    rate: float
    rss_mib: float
    busy: float
    driver_us: float

    @property
    def cpu(self) -> float:
        return self.user + self.system


class Latency(NamedTuple):
    """At a rate. Milliseconds from when a request was due to its answer."""

    share: float
    rate: float
    p50: float
    p95: float
    p99: float
    most: float
    cpu: float


Figures = TypeVar("Figures", Saturated, Latency)


def saturate(world: World, subject: Subject, load: Load, seconds: float) -> Saturated:
    before = subject.cost()
    connections = CONNECTIONS * len(subject.ports)
    found = world.driver.run(order(subject, load, connections, seconds), subject.name)
    after = subject.cost()
    user, system = ((after[i] - before[i]) / found.requests * 1e6 for i in (0, 1))
    return Saturated(
        user,
        system,
        found.requests / found.seconds,
        after.rss / 2**20,
        (after.cpu - before.cpu) / found.seconds,
        found.driver_us,
    )


def at_rate(world: World, subject: Subject, load: Load, share: float, saturation: float, seconds: float) -> Latency:
    """At this share of what it answers at most."""
    rate = share * saturation
    before = subject.cost()
    found = world.driver.run(order(subject, load, CLIENTS, seconds, rate), subject.name)
    cpu = (subject.cost().cpu - before.cpu) / found.requests * 1e6
    return Latency(share, rate, found.p50, found.p95, found.p99, found.most, cpu)


def doubled(
    world: World, one: Subject, two: Subject, load: Load, saturation: float, seconds: float
) -> list[tuple[Latency, Latency]]:
    """In turns, one process at a rate and two at twice that: each has as much to do as the one.

    `saturation` is what one answers at most, of which this core has to have room for twice the part.
    """
    return [
        (
            at_rate(world, one, load, DOUBLED_SHARE, saturation, seconds),
            at_rate(world, two, load, DOUBLED_SHARE, 2 * saturation, seconds),
        )
        for _ in range(RATE_ROUNDS)
    ]


def rounds(
    world: World, subjects: Sequence[Subject], load: Load, number: int, seconds: float, warm: float
) -> dict[str, list[Saturated]]:
    """Each subject in each round, after each was warmed up."""
    for subject in subjects:
        saturate(world, subject, load, warm)
    found: dict[str, list[Saturated]] = {subject.name: [] for subject in subjects}
    for _ in range(number):
        for subject in subjects:
            found[subject.name].append(saturate(world, subject, load, seconds))
    return found


def middle(measured: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return type(measured[0])(*(median(values) for values in zip(*measured, strict=True)))


def ratio(ours: Sequence[Saturated], other: Sequence[Saturated]) -> float:
    """The median of the rounds' ratios of CPU: what disturbs a round disturbs both of its sides."""
    return median(mine.cpu / theirs.cpu for mine, theirs in zip(ours, other, strict=True))


def order(subject: Subject, load: Load, connections: int, seconds: float, rate: float | None = None) -> Order:
    return Order(subject.ports, load.organisations, load.kind.events, load.kind.gzip, connections, seconds, rate)
