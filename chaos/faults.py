"""How each kind of fault is done to an installation, and taken back."""

import logging
import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError

from chaos.installation import PARTITIONS, Installation
from chaos.plan import Fault
from chaos.traffic import poison

log = logging.getLogger(__name__)

STORM = 3


class Faults:
    """The faults of one round, each on a thread of its own from `start`."""

    def __init__(
        self, installation: Installation, faults: Sequence[Fault], organisations: Sequence[str], rng: random.Random
    ) -> None:
        self._installation = installation
        self._organisations = organisations
        self._seeds = {fault: rng.random() for fault in faults}
        self._threads = [threading.Thread(target=self._run, args=(fault,), name=str(fault)) for fault in faults]
        self._started = 0.0
        self.problems: list[str] = []

    def start(self) -> None:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Returns when every fault has been taken back."""
        for thread in self._threads:
            thread.join()

    def _run(self, fault: Fault) -> None:
        rng = random.Random(self._seeds[fault])
        try:
            self._wait_for(fault.at)
            self._apply(fault, rng)
            self._wait_for(fault.end)
            heal(self._installation, fault)
        except Exception as error:
            log.exception("fault %s", fault)
            self.problems.append(f"the fault {fault} could not be done: {error}")

    def _wait_for(self, at: float) -> None:
        time.sleep(max(0.0, self._started + at - time.monotonic()))

    def _apply(self, fault: Fault, rng: random.Random) -> None:
        installation = self._installation
        if fault.kind in ("kill", "freeze"):
            _strike(installation, fault)
        elif fault.kind == "spool-full":
            edge = installation.edge(fault.target)
            edge.disk.fill(edge.pid)
        elif fault.kind == "power-loss":
            log.info("%s lost %d bytes", fault.target, installation.edge(fault.target).lose_power())
        elif fault.kind == "storm":
            _storm(installation, fault, rng)
        elif fault.kind == "poison":
            _poison(installation, self._organisations, rng)
        else:
            installation.links[fault.target].set(fault.kind, rng.uniform(0.02, 0.3))


def heal(installation: Installation, fault: Fault) -> None:
    """Ends a fault; what was killed is started, and servers answer when this returns."""
    if fault.kind in ("kill", "freeze") and fault.target in ("kafka", "postgres"):
        server = installation.server(fault.target)
        server.thaw()
        server.start()
    elif fault.kind == "freeze":
        installation.roles[fault.target].thaw()
    elif fault.kind in ("kill", "power-loss") and fault.target in installation.roles:
        installation.roles[fault.target].start()
    elif fault.kind == "spool-full":
        edge = installation.edge(fault.target)
        edge.disk.make_room(edge.pid)
    elif fault.kind == "storm":
        installation.end_storm()
    elif fault.target in installation.links:
        installation.links[fault.target].set("pass")


def _strike(installation: Installation, fault: Fault) -> None:
    if fault.target == "postgres-backend":
        installation.postgres.kill_backend()
        return
    struck = installation.roles.get(fault.target) or installation.server(fault.target)
    if fault.kind == "kill":
        struck.kill()
    else:
        struck.freeze()


def _storm(installation: Installation, fault: Fault, rng: random.Random) -> None:
    """Workers join one after the other, and some of them die as soon as they are in."""
    for _ in range(STORM):
        worker = installation.join_storm()
        time.sleep(fault.seconds / (2 * STORM))
        if rng.random() < 0.5:
            worker.kill()


def _poison(installation: Installation, organisations: Sequence[str], rng: random.Random) -> None:
    """Bytes that no edge of ours would write, straight onto the topics; none while the log is away."""
    now = time.time_ns() // 1_000_000
    with suppress(KafkaError):
        servers = installation.kafka.kafka.servers
        producer = KafkaProducer(bootstrap_servers=servers, bootstrap_timeout_ms=5000, metrics_enabled=False)
        try:
            for topic, value in poison(installation.topics, organisations, now, rng):
                producer.send(topic, value, partition=rng.randrange(PARTITIONS)).get(timeout=10)
        finally:
            producer.close(timeout=5)
