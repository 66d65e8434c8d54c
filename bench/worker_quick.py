"""The worker's part of `python -m bench.quick`: ours beside two peers, as ratios, in about 80 seconds."""

from bench.worker_events import Job, Shape
from bench.worker_run import Runs, interleaved
from bench.worker_subjects import OURSELVES, PLAIN, QUIX
from bench.worker_world import world

EVENTS = 100_000  # of half as many, what differs from one start to the next is a fifth of what is measured
ROUNDS = 2
JOBS: tuple[Job, ...] = ("bare", "full")
PEERS = {"plain": PLAIN, "quix": QUIX}


def ratios() -> dict[str, float]:
    """`worker_JOB_rate_PEER`: our events a second over the peer's. `worker_JOB_cpu_PEER`: our CPU an event over its."""
    found = {}
    with world() as place:
        runs = Runs(place)
        for job in JOBS:
            measured = interleaved(runs, (OURSELVES, *PEERS.values()), Shape(job, EVENTS), ROUNDS)
            # Of each the better round: what else the machine does makes a round worse and never better.
            rates = {name: max(one.events_per_second for one in theirs) for name, theirs in measured.items()}
            cpu = {name: min(one.worker_us for one in theirs) for name, theirs in measured.items()}
            for short, peer in PEERS.items():
                found[f"worker_{job}_rate_{short}"] = rates[OURSELVES.name] / rates[peer.name]
                found[f"worker_{job}_cpu_{short}"] = cpu[OURSELVES.name] / cpu[peer.name]
    return found
