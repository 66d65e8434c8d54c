"""The harness can fail: each of four broken promises is found within the rounds stated here, on real servers.

Run by `make chaos-sabotage`; about five minutes, too long for every `make test`.
"""

import logging
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chaos.installation import Installation
from chaos.plan import Drawing, Fault
from chaos.rounds import Round, Rounds

pytestmark = pytest.mark.timeout(240)

SEED = 5
EVENTS = 1200

# What makes each visible. Retries of clients are in the traffic, so a lost de-duplication needs no fault at all.
FAULTS: dict[str, list[Fault]] = {
    "dedup": [],
    # A worker that is slow with its batches, and frozen for longer than the group waits for it, wakes with one in hand.
    "cas": [Fault("delay", "worker-1>postgres", 0.2, 18.0), Fault("freeze", "worker-1", 2.5, 13.0)],
    # What was on its way to a log that is away dies with the edges.
    "early": [
        Fault("freeze", "kafka", 1.0, 5.0),
        Fault("kill", "edge-1", 2.5, 1.0),
        Fault("kill", "edge-2", 2.5, 1.0),
    ],
    # An edge waits three seconds for the log before it spools.
    "fsync": [Fault("cut", "edge-1>kafka", 0.3, 7.7), Fault("power-loss", "edge-1", 6.0, 1.0)],
}
WITHIN_ROUNDS = {"dedup": 1, "cas": 3, "early": 1, "fsync": 1}


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that PostgreSQL's user may enter."""
    made = Path(tempfile.mkdtemp(prefix="zenstep-chaos-"))
    made.chmod(0o755)
    level = logging.getLogger("kafka").level
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # of a server that was killed it has much to say
    yield made
    logging.getLogger("kafka").setLevel(level)
    shutil.rmtree(made)


def play(folder: Path, sabotage: str | None, plans: list[list[Fault]]) -> Generator[Round, None, None]:
    with closing(Installation(folder, sabotage)) as installation:
        rounds = Rounds(installation, SEED, EVENTS, Drawing())
        for number, faults in enumerate(plans, start=1):
            yield rounds.play(number, faults)


@pytest.mark.parametrize("sabotage", list(FAULTS))
def test_a_broken_promise_is_found(folder: Path, sabotage: str) -> None:
    plans = [FAULTS[sabotage]] * WITHIN_ROUNDS[sabotage]
    with closing(play(folder, sabotage, plans)) as rounds:
        assert any(one.lost or one.doubled for one in rounds), f"not found within {len(plans)} rounds"


def test_what_is_not_broken_passes_the_same_faults(folder: Path) -> None:
    for one in play(folder, None, list(FAULTS.values())):
        assert one.problems == [], one.faults
