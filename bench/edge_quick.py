"""The edge's ratios, in about a minute: CPU a request of ours over FastAPI's, and with Redis over without."""

from contextlib import ExitStack

from bench.bodies import Kind
from bench.edge import fresh
from bench.edge_measure import Load, ratio, rounds
from bench.edge_subjects import FASTAPI, OURS, OURS_ALONE, SUBJECTS

ROUNDS = 6
SECONDS = 0.9
WARM = 1.5
ORGANISATIONS = 100


def ratios() -> dict[str, float]:
    """By the names of bench/bounds.json."""
    found = {}
    with fresh(ORGANISATIONS) as place, ExitStack() as stack:
        subjects = [stack.enter_context(SUBJECTS[name](place, 1)) for name in (OURS, FASTAPI, OURS_ALONE)]
        for events in (1, 50):
            measured = rounds(place, subjects, Load(Kind(events), ORGANISATIONS), ROUNDS, SECONDS, WARM)
            found[f"edge_{events}_cpu"] = ratio(measured[OURS], measured[FASTAPI])
            found[f"edge_{events}_redis"] = ratio(measured[OURS], measured[OURS_ALONE])
    return found
