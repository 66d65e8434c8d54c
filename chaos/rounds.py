"""A round: organisations, traffic and faults together, then healing, catching up and the verdict."""

import logging
import time

import msgspec

from backends.store.catalog import Catalog
from chaos import plan
from chaos.audit import audit
from chaos.books import Books
from chaos.clients import Clients, Outcome, acknowledged_ids, write_log
from chaos.faults import Faults
from chaos.installation import PARTITIONS, Installation, Late, stored_offsets, wait_until
from chaos.judge import Verdict, judge, judge_analytics, read_store
from chaos.topics import Topics
from chaos.traffic import World, sendings, world_of
from schemas.limits import LIMITS, MAX_LIMIT

log = logging.getLogger(__name__)

CATCH_UP_SECONDS = 150.0


class Round(msgspec.Struct):
    """What was done in a round and what came of it."""

    number: int
    faults: list[plan.Fault]
    requests: int = 0
    tries: int = 0
    sent: int = 0  # different event ids
    acknowledged: int = 0  # of them, with a 2xx
    counted: int = 0
    duplicates: int = 0
    rejected: int = 0
    lost: int = 0
    doubled: int = 0
    seconds: float = 0.0
    recovery_seconds: float = 0.0
    problems: list[str] = []

    @property
    def good(self) -> bool:
        return not self.problems


class Rounds:
    """Plays rounds on one installation."""

    def __init__(self, installation: Installation, seed: int, events: int, drawing: plan.Drawing) -> None:
        self._installation = installation
        self._seed = seed
        self._events = events
        self._drawing = drawing
        self._books = Books()
        self._topics = Topics(installation.kafka.kafka.servers, installation.topics.all(), PARTITIONS)
        self._catalog = Catalog(installation.engine)

    def play(self, number: int, faults: list[plan.Fault] | None = None) -> Round:
        """`faults` in place of those that the seed draws."""
        begun = time.monotonic()
        drawn = plan.draw(self._seed, number, self._drawing) if faults is None else faults
        result = Round(number, drawn)
        before = self._sums()
        world = world_of(plan.rng_of(self._seed, number, "world"))
        self._books.open(world)
        try:
            self._installation.start_roles()  # one may have ended after the last round
            self._installation.wait_ready()
            outcomes, healed = self._act(number, world, drawn, result)
            verdict = self._settle(world, outcomes, healed, result)
        except Late as late:
            result.problems.append(str(late))
            for role in self._installation.roles.values():  # what is stuck would spoil the next round too
                role.kill()
        else:
            result.lost, result.doubled = verdict.lost, verdict.doubled
            result.problems += verdict.problems
        result.problems += self._installation.ended_by_themselves()
        after = self._sums()
        result.counted, result.duplicates, result.rejected = (
            after[name] - before[name] for name in ("counted", "duplicate", "rejected")
        )
        self._books.close(world)
        result.seconds = round(time.monotonic() - begun, 1)
        return result

    def _act(self, number: int, world: World, drawn: list[plan.Fault], result: Round) -> tuple[list[Outcome], float]:
        """Traffic and faults, until the clients are done and all is healed; returns when that was, too."""
        keys = self._make(world)
        now = time.time_ns() // 1_000_000
        planned = sendings(world, self._events, now, plan.rng_of(self._seed, number, "traffic"))
        faults = Faults(self._installation, drawn, world.organisations, plan.rng_of(self._seed, number, "strikes"))
        log.info("round %d: traffic and faults begin", number)
        faults.start()
        outcomes = Clients([edge.base for edge in self._installation.edges], keys).send(planned)
        faults.join()
        healing = time.monotonic()
        log.info("round %d: clients are done", number)
        result.problems += faults.problems
        result.problems += self._installation.ended_by_themselves()
        self._installation.heal()
        write_log(self._installation.folder / f"clients-{number}.jsonl", outcomes)
        result.requests, result.tries = len(outcomes), sum(len(outcome.tries) for outcome in outcomes)
        result.sent = len({one for outcome in outcomes for one in outcome.sending.ids})
        result.acknowledged = sum(map(len, acknowledged_ids(outcomes).values()))
        return outcomes, healing

    def _make(self, world: World) -> list[str]:
        """The organisations and flows; returns a key for each."""
        keys = []
        for organisation, flows in zip(world.organisations, world.flows, strict=True):
            self._catalog.create_organisation("Chaos", organisation)
            for bucket in LIMITS:
                self._catalog.set_limit(organisation, bucket, MAX_LIMIT)
            for flow in flows:
                self._catalog.import_flow(flow)
            keys.append(self._catalog.create_key(organisation))
        return keys

    def _settle(self, world: World, outcomes: list[Outcome], healed: float, result: Round) -> Verdict:
        """Waits until all is counted, then judges; once more where a late line came in between. Raises Late."""
        by_number = acknowledged_ids(outcomes)
        acknowledged = {world.organisations[number]: ids for number, ids in by_number.items()}
        for _ in range(5):
            self._wait_caught_up()
            result.recovery_seconds = result.recovery_seconds or round(time.monotonic() - healed, 1)
            log.info("round %d: caught up", result.number)
            stored = read_store(self._installation.engine, world.organisations)
            self._books.enter(self._topics.read_to(stored.offsets))
            log.info("round %d: topics read", result.number)
            verdict = judge(self._books, stored, acknowledged)
            now = time.time_ns() // 1_000_000
            problems = judge_analytics(self._installation.engine, world, self._books, now)
            if stored_offsets(self._installation.engine) == stored.offsets and not self._left():
                break
        log.info("round %d: analytics compared", result.number)
        problems += audit(self._installation)
        return verdict._replace(problems=[*verdict.problems, *problems])

    def _wait_caught_up(self) -> None:
        """Raises Late, saying what is left to be done."""
        try:
            wait_until("all to be counted", lambda: not self._left(), CATCH_UP_SECONDS)
        except Late as late:
            raise Late(f"{late}; left are: {', '.join(self._left())}") from None

    def _left(self) -> list[str]:
        """What is in a spool, and where the workers stand before the topics' ends."""
        left = []
        for edge in self._installation.edges:
            if not edge.ready():
                left.append(f"{edge.name} is not ready")
            elif spooled := edge.metric("zenstep_spool_events"):
                left.append(f"{edge.name} has {spooled:.0f} events spooled")
        if not left:
            stored = stored_offsets(self._installation.engine)
            for (topic, partition), end in self._topics.ends().items():
                if (at := stored.get((topic, partition), 0)) != end:
                    left.append(f"{topic}[{partition}] is at {at} of {end}")
        return left

    def _sums(self) -> dict[str, int]:
        sums = dict.fromkeys(("counted", "duplicate", "rejected"), 0)
        for (*_, outcome), events in self._books.ledger.items():
            name = outcome.partition(":")[0]
            if name in sums:
                sums[name] += events
        return sums
