"""The worker's loop: gather, prepare, write, commit; and what to do when the log or the store is away.

A batch is written on threads of their own, a large one in shares, while the next is gathered and prepared here. A
partition is given up only when nothing is being written, and where a write fails, what was made ready behind it is
forgotten and read again. The store's offsets are the truth; Kafka's are kept for the lag tools.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import sqlalchemy as sa

from backends.log import Consumer, LogUnavailable, OffsetOutOfRange, Record, TopicPartition
from backends.store.counting import Counting, OffsetMoved
from backends.store.engine import ENVIRONMENT_ERRORS
from backends.store.offsets import AnotherTopic, Offsets
from service import metrics
from service.garbage import Passed
from workers import stops
from workers.batch import Batches, Prepared
from workers.closer import Closer
from workers.limit import Limit
from workers.stops import STOPS
from workers.writer import Behind, Writer, Written, shares

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
WRITING_POLL_SECONDS = 0.02  # while a batch is written what comes is gathered, and the next is not kept waiting
LAG_SECONDS = 1.0
BATCH_BYTES = 8 * 1024 * 1024  # some 25,000 events; and what one poll brings
WRITERS = 4  # while the store works for one, another has what it needs from this process
BACKOFF = (0.2, 10.0)


class Worker:
    """Runs until `stop`. `open_consumer` is given the two callbacks of the group and returns the consumer."""

    def __init__(
        self,
        engine: sa.Engine,
        open_consumer: Callable[[Callable[..., Mapping[TopicPartition, int]], Callable[..., None]], Consumer],
        batch_records: int = 1000,
        limit: Limit | None = None,
    ) -> None:
        self._batches = Batches(engine, limit)
        # SQLite has one writer at a time.
        self._writers = WRITERS if engine.dialect.name == "postgresql" else 1
        self._writer = Writer(self._batches.write, self._writers)
        self._counting = Counting(engine)
        self._offsets = Offsets(engine)
        self._closer = Closer(engine)
        self._batch_records = batch_records
        self._stopping = threading.Event()
        self._next: dict[TopicPartition, int] = {}  # where the store is known to stand
        self._ahead: dict[TopicPartition, int] = {}  # where it will stand when what is being written is
        self._gathered: list[Record] = []
        self._gathered_bytes = 0
        self._passed = Passed()
        self._reached: dict[TopicPartition, int] = {}
        self._identities: dict[str, str] = {}
        self._lag_at = 0.0
        self._consumer = open_consumer(self._on_assign, self._on_revoke)
        self.problem: str | None = "starting"

    def stop(self) -> None:
        """Finishes the batch under way, then `run` returns. Safe from a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Raises one of STOPS, or whatever is a fault of ours: both need somebody to look."""
        failures = 0
        self._closer.start()
        try:
            while not self._stopping.is_set():
                try:
                    self._step()
                    failures = 0
                    self.problem = None
                except LogUnavailable as error:
                    failures = self._back_off("log", error, failures)
                except ENVIRONMENT_ERRORS as error:
                    failures = self._back_off("store", error, failures)
            with suppress(*ENVIRONMENT_ERRORS):
                self._settle()
        except tuple(STOPS) as error:
            self.problem = str(error)
            metrics.worker_stopped.labels(STOPS[type(error)]).set(1)
            raise
        finally:
            self._closer.stop()
            self._writer.close()
            self._consumer.close()

    def _step(self) -> None:
        # Neither here nor in `_gather` a batch has a name: a poll that finds nothing leaves a circle around the frames
        # it was called from, and what they hold stays until the collector comes to it.
        try:
            self._gather()
            self._passed.add(self._gathered_bytes)
            self._pass_on()
        except Exception:
            # Nothing of what was gathered is written: read all of it again, behind what is being written.
            self._settle()
            self._rewind()
            raise
        if time.monotonic() - self._lag_at >= LAG_SECONDS or self._writer.idle:
            self._lag_at = time.monotonic()
            self._measure_lag()

    def _gather(self) -> None:
        """A batch: what one poll brings, and while the writer is not ready for it what more comes."""
        self._gathered = []
        self._gathered_bytes = 0
        self._poll(POLL_SECONDS if self._writer.idle else WRITING_POLL_SECONDS)
        while not self._writer.ready and self._has_room():
            self._poll(WRITING_POLL_SECONDS)

    def _pass_on(self) -> None:
        """What was gathered, to the writer."""
        batch = [r for r in self._gathered if (r.topic, r.partition) in self._next]
        prepared: list[Prepared] = []
        if batch:
            # Asked after the batch was read: what is the same now was the same then.
            self._same_topics()
            held = {tp.partition for tp in self._next}
            prepared = [self._batches.prepare(share, self._ahead) for share in shares(batch, self._writers, held)]
            self._writer.wait_until_ready()
        if self._look() and prepared:
            for share in prepared:
                self._ahead |= {TopicPartition(move.topic, move.partition): move.following for move in share.moves}
            self._writer.begin(prepared)

    def _has_room(self) -> bool:
        return len(self._gathered) < self._batch_records and self._gathered_bytes < BATCH_BYTES

    def _poll(self, seconds: float) -> None:
        try:
            found = self._consumer.poll(seconds, self._batch_records - len(self._gathered))
        except OffsetOutOfRange as error:
            # Where the log has the offset after all, it was not itself for a moment.
            raise self._astray() or LogUnavailable(str(error)) from error
        self._gathered_bytes += sum(len(record.value) for record in found)
        self._gathered += found  # of which the group's callbacks, inside of poll, may have taken some away

    def _settle(self) -> bool:
        """Waits for what is being written; see `_look`."""
        self._writer.wait()
        return self._look()

    def _look(self) -> bool:
        """Goes on from what has been written. False where something was not: then nothing is being written any more,
        and what was not is read again.

        Raises what writing it raised, but for a partition that moved on without us.
        """
        done = self._writer.done()
        if any(isinstance(one, BaseException) for one in done):
            done += self._writer.finish()
        for written in done:
            if isinstance(written, Written):
                self._advance(written)
        errors = [one for one in done if isinstance(one, BaseException)]
        if errors:
            self._rewind()
        for error in errors:
            if isinstance(error, Behind):
                continue
            if not isinstance(error, OffsetMoved):
                raise error
            # We were away so long that another worker went on. What it has done is done; ask where it stands.
            metrics.zombie_batches.inc()
            lost = TopicPartition(error.topic, error.partition)
            log.warning("offset moved by another worker", extra={"topic": lost.topic, "partition": lost.partition})
            self._reposition(lost)
        return not errors

    def _advance(self, written: Written) -> None:
        # A partition that went and came back meanwhile stands where the store said then, or here.
        offsets = written.offsets.items()
        held = {tp: max(offset, self._next[tp]) for tp, offset in offsets if tp in self._next}
        self._next.update(held)
        self._reached.update({tp: written.reached[tp] for tp in held})
        self._consumer.commit(held)

    def _rewind(self) -> None:
        """Goes back to where the store stands."""
        self._ahead = dict(self._next)
        for tp in self._consumer.assignment():
            if tp in self._next:
                self._consumer.seek(tp, self._next[tp])

    def _reposition(self, lost: TopicPartition) -> None:
        """Asks the store where a partition stands."""
        if lost not in self._next:
            return
        stored = self._counting.offsets({lost: self._next[lost]})
        self._next[lost] = self._ahead[lost] = stored[lost]
        self._consumer.seek(lost, stored[lost])

    def _on_assign(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        self._let_go(partitions)
        identities = self._consumer.identities()
        beginning = self._consumer.beginning_offsets(partitions)
        try:
            stored = self._offsets.begin({tp: beginning[tp] for tp in partitions}, identities)
        except AnotherTopic as error:
            raise stops.recreated(error) from error
        offsets = {tp: stored[tp] for tp in partitions}
        self._identities |= identities
        self._next.update(offsets)
        self._ahead.update(offsets)
        metrics.partitions_assigned.set(len(self._next))
        log.info("partitions assigned", extra={"partitions": [f"{tp.topic}[{tp.partition}]" for tp in partitions]})
        return offsets

    def _on_revoke(self, partitions: list[TopicPartition]) -> None:
        self._let_go(partitions)
        for tp in partitions:
            self._next.pop(tp, None)
            self._ahead.pop(tp, None)
            self._reached.pop(tp, None)
            for gauge in (metrics.lag_records, metrics.lag_seconds):
                with suppress(KeyError):
                    gauge.remove(tp.topic, str(tp.partition))
        metrics.partitions_assigned.set(len(self._next))
        log.info("partitions revoked", extra={"partitions": [f"{tp.topic}[{tp.partition}]" for tp in partitions]})

    def _let_go(self, partitions: list[TopicPartition]) -> None:
        """What was gathered of them was read from another position; what is being written is waited for."""
        self._gathered = [r for r in self._gathered if (r.topic, r.partition) not in partitions]
        self._writer.wait()

    def _same_topics(self) -> set[TopicPartition]:
        """Asks the log; returns what is held of topics that are there. Raises TopicRecreated.

        A topic made anew while it is read would be read on from where the old one was.
        """
        found = self._consumer.identities()
        for topic in sorted({tp.topic for tp in self._next}):
            held = self._identities.get(topic)
            if topic in found and held is not None and found[topic] != held:
                raise stops.recreated(AnotherTopic(topic, held, found[topic]))
        return {tp for tp in self._next if tp.topic in found or tp.topic not in self._identities}

    def _astray(self) -> Exception | None:
        """What is to be said of an offset that the log does not have; None where it has it, or the topic is no more."""
        held = {tp: self._next[tp] for tp in sorted(self._same_topics())}
        partitions = list(held)
        beginnings, ends = self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        return stops.astray(held, beginnings, ends)

    def _measure_lag(self) -> None:
        """Sets the lag gauges, and tells the store of partitions that are caught up as of before the question."""
        held = list(self._next)
        if not held:
            return
        asked = time.time_ns() // 1_000_000
        ends = self._consumer.end_offsets(held)
        caught_up = {}
        for tp in held:
            behind = max(0, ends[tp] - self._next[tp])
            labels = (tp.topic, str(tp.partition))
            metrics.lag_records.labels(*labels).set(behind)
            age = max(0, asked - self._reached.get(tp, asked)) / 1000 if behind else 0
            metrics.lag_seconds.labels(*labels).set(age)
            if ends[tp] == self._next[tp]:  # beyond the end is out of range, which the next poll says
                caught_up[tp] = self._next[tp]
        self._counting.mark_caught_up(caught_up, asked)

    def _back_off(self, part: str, error: Exception, failures: int) -> int:
        metrics.environment_errors.labels(part).inc()
        self.problem = f"{part} is away"
        seconds = min(BACKOFF[1], BACKOFF[0] * 2**failures) * random.uniform(0.5, 1.0)
        log.warning("%s is away, backing off", part, extra={"seconds": round(seconds, 2), "kind": type(error).__name__})
        try:
            self._consumer.keep_alive(seconds)
        except LogUnavailable:
            self._stopping.wait(seconds)
        return failures + 1
