"""What goes wrong in a round, and when: drawn from the seed, so that a round can be played again. Pure."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

EDGES = ("edge-1", "edge-2")
WORKERS = ("worker-1", "worker-2")
SERVERS = ("kafka", "postgres")
LINKS = tuple(f"{role}>{server}" for server in SERVERS for role in (*EDGES, *WORKERS))

# What each kind of fault may strike.
TARGETS = {
    "kill": (*EDGES, *WORKERS, *SERVERS, "postgres-backend"),
    "freeze": (*EDGES, *WORKERS, *SERVERS),
    "cut": LINKS,
    "delay": LINKS,
    "black-hole": LINKS,
    "half-close": LINKS,
    "deaf": LINKS,
    "spool-full": EDGES,
    "power-loss": EDGES,
    "storm": ("workers",),
    "poison": ("topics",),
}
KINDS = tuple(TARGETS)
_WEIGHTS = {"kill": 6, "freeze": 4, "power-loss": 3, "poison": 3}  # 2 of each other kind
NEEDS_OUTAGE = ("spool-full", "power-loss")
"""A spool is only written to while its edge has no log."""


class Fault(msgspec.Struct, frozen=True):
    """Begins `at` seconds into the round and is taken back after `seconds`."""

    kind: str
    target: str
    at: float
    seconds: float

    @property
    def end(self) -> float:
        return self.at + self.seconds

    def __str__(self) -> str:
        return f"{self.kind} {self.target} {self.at:.1f}+{self.seconds:.1f}s"


class Drawing(NamedTuple):
    """How faults are drawn. `wanted` are kinds or `kind:target`; `freeze` is the shortest and the longest freeze."""

    wanted: Sequence[str] = KINDS
    freeze: tuple[float, float] = (5.0, 30.0)
    most: int = 3

    def targets(self) -> dict[str, list[str]]:
        """Raises ValueError for a fault that there is not."""
        found: dict[str, list[str]] = {}
        for wanted in self.wanted:
            kind, _, target = wanted.partition(":")
            if kind not in TARGETS or (target and target not in TARGETS[kind]):
                raise ValueError(f"no such fault: {wanted}")
            found.setdefault(kind, []).extend([target] if target else TARGETS[kind])
        return found


def rng_of(seed: int, number: int, purpose: str) -> random.Random:
    """A round's own randomness, so that any round can be played without those before it."""
    return random.Random(f"{seed}/{number}/{purpose}")


def draw(seed: int, number: int, drawing: Drawing) -> list[Fault]:
    """One to `most` faults, no two on one target, and the outage that a fault needs to show anything."""
    rng = rng_of(seed, number, "faults")
    targets = drawing.targets()
    faults: list[Fault] = []
    for _ in range(rng.randint(1, drawing.most)):
        kind = rng.choices(list(targets), weights=[_WEIGHTS.get(kind, 2) for kind in targets])[0]
        target = rng.choice(targets[kind])
        fault = Fault(kind, target, round(rng.uniform(0.5, 5.0), 1), round(_seconds(kind, rng, drawing), 1))
        struck = _with_outage(fault, rng) if kind in NEEDS_OUTAGE else [fault]
        if not {one.target for one in struck} & {one.target for one in faults}:
            faults += struck
    return sorted(faults, key=lambda fault: fault.at)


def _seconds(kind: str, rng: random.Random, drawing: Drawing) -> float:
    if kind == "freeze":
        shortest, longest = drawing.freeze
        return shortest + (longest - shortest) * rng.random() ** 3  # long ones are rare: each holds up the whole run
    if kind in ("kill", "power-loss"):
        return rng.uniform(0.3, 4.0)
    if kind == "poison":
        return 0.0
    return rng.uniform(2.0, 6.0)


def _with_outage(fault: Fault, rng: random.Random) -> list[Fault]:
    """Takes the log away from the edge before the fault and for all of it.

    An edge waits some seconds for the log before it spools, so a loss of power is to come after those.
    """
    kind, target = rng.choice(
        [("kill", "kafka"), ("cut", f"{fault.target}>kafka"), ("black-hole", f"{fault.target}>kafka")]
    )
    begins = rng.uniform(0.3, 2.0)
    at = begins + (rng.uniform(0.3, 4.0) if fault.kind == "spool-full" else rng.uniform(4.0, 5.5))
    later = Fault(fault.kind, fault.target, round(at, 1), fault.seconds)
    lasts = later.end - begins + rng.uniform(0.5, 2.0)
    return [Fault(kind, target, round(begins, 1), round(lasts, 1)), later]
