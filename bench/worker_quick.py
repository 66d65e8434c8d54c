"""The worker's part of `python -m bench.quick`: ours beside two peers, as ratios, in under a minute and a half."""

from bench.worker_events import Job, Shape
from bench.worker_run import Runs, interleaved, median
from bench.worker_subjects import OURSELVES, PLAIN, QUIX
from bench.worker_world import world

EVENTS = 50_000
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
            figures = {name: median(theirs) for name, theirs in measured.items()}
            ours = figures[OURSELVES.name]
            for short, peer in PEERS.items():
                theirs = figures[peer.name]
                found[f"worker_{job}_rate_{short}"] = ours.events_per_second / theirs.events_per_second
                found[f"worker_{job}_cpu_{short}"] = ours.worker_us / theirs.worker_us
    return found
