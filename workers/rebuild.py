"""The rebuild: reads the topics from their beginning into tables beside the live ones, as far as the workers have come.

It goes exactly as far as they are, never further: so the swap moves no offset, and readers see the same records counted
before and after it.
"""

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import schemas
from backends.log import Reader, TopicPartition
from backends.store import counting, rows, statements, transaction
from backends.store.compare import Difference, compare
from backends.store.counting import Counting, OffsetMoved
from backends.store.rebuild import Beside, Held, Occupied, Position, RebuildError
from workers.batch import Batches
from workers.extent import Extent, extents, made_anew
from workers.limit import Limit, TooMuchPoison

QUICK_SECONDS = 3.0  # so long, about, the workers are held back for what is left to count
PATIENCE_SECONDS = 600.0
PAUSE_SECONDS = (0.5, 10.0)
TELL_SECONDS = 0.5

_WHY_ANEW = {
    "tables": "the store was migrated since",
    "program": "it was begun by another release of this program",
    "forgotten": "somebody was forgotten since",
    "topics": "a topic was made anew since",
}


class Interrupted(Exception):
    """Stopped when asked to; the next run goes on from there."""


class Changed(Exception):
    """What the rebuild was begun under is no longer so: it has to begin anew."""


class Progress(NamedTuple):
    """How far the rebuild is, earlier runs included: records of so many that the workers have counted."""

    records: int
    of: int
    events: int


class Rebuild:
    """One run. `identities` are those of the log's topics now.

    `tell` gets the progress and `say` sentences; it ends between two batches once `stopping` says so.
    """

    def __init__(
        self,
        beside: Beside,
        reader: Reader,
        batch_records: int,
        identities: Callable[[], Mapping[str, str]] = dict,
        limit: Limit | None = None,
        accept_loss: bool = False,
        tell: Callable[[Progress], None] = lambda progress: None,
        say: Callable[[str], None] = lambda sentence: None,
        stopping: Callable[[], bool] = lambda: False,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._beside = beside
        self._reader = reader
        self._batch_records = batch_records
        self._ask_identities = identities
        self._limit = limit
        self._batches = Batches(beside.engine, limit)
        self._ledger = Counting(beside.engine).ledger
        self._accept_loss = accept_loss
        self._tell = tell
        self._say = say
        self._stopping = stopping
        self._patience = patience
        self._conditions: dict[str, str] = {}
        self._identities: Mapping[str, str] = {}
        self._ends: dict[TopicPartition, int] = {}  # where the log has less than the workers have counted
        self._at: dict[TopicPartition, int] = {}
        self._reached: dict[TopicPartition, int] = {}  # the time of the last record read, epoch ms
        self._told = 0.0

    def swap(self, restart: bool = False) -> Progress:
        """Rebuilds, and puts that in place. Raises Interrupted, RebuildError, LogError, SQLAlchemy's errors."""
        with self._beside.alone():
            self._start(restart)
            while (done := self._put_in_place()) is None:
                self._start(restart=False)
            self._beside.throw_away()
            return done

    def compare(self, restart: bool = False) -> list[Difference]:
        """Rebuilds, and says in what each table differs from the live one. Raises as `swap`."""
        with self._beside.alone(), ExitStack() as stack:
            self._start(restart)
            self._catch_up()
            with self._beside.held() as held:
                self._follow(held.positions(), held)
                # Both sides as of the same offsets; the workers need not wait for what is done with it.
                connection = stack.enter_context(self._beside.snapshot())
            return compare(connection, self._beside.live, self._beside.beside)

    def _start(self, restart: bool) -> None:
        self._conditions = self._beside.conditions_now()
        conditions = self._conditions | {"program": _program()}
        self._identities = self._ask_identities()
        begun, rebuilt = self._beside.conditions(), dict[TopicPartition, Position]()
        if begun is not None:
            rebuilt = _by_partition(self._beside.positions())
            changed = [name for name, value in conditions.items() if begun.get(name) != value]
            if any(made_anew(at, self._identities.get(tp.topic)) for tp, at in rebuilt.items()):
                changed.append("topics")
            if restart or changed:
                why = "as asked" if restart else _WHY_ANEW[changed[0]]
                self._say(f"The rebuild that was begun is thrown away: {why}.")
                begun, rebuilt = None, {}
        self._beside.check()
        if begun is None:
            self._beside.throw_away()
        counted = _by_partition(self._beside.live_positions())
        if not counted:
            raise RebuildError("nothing has been counted yet: there is nothing to rebuild")
        found = self._extents_of(counted, rebuilt)
        if begun is None:
            self._beside.create(conditions)
        else:
            self._say("Going on with the rebuild that was begun.")
        self._batches = Batches(self._beside.engine, self._limit)  # it remembers what it made in the tables before
        self._ends, self._at = {}, {}
        self._enter(found, counted)

    def _extents_of(
        self, counted: Mapping[TopicPartition, Position], rebuilt: Mapping[TopicPartition, Position]
    ) -> dict[TopicPartition, Extent]:
        found = extents(self._reader, self._identities, counted, rebuilt)
        lost = [extent.loss for _, extent in sorted(found.items()) if extent.loss is not None]
        if lost and not self._accept_loss:
            others = f"; the same is so of {len(lost) - 1} more partitions" if len(lost) > 1 else ""
            raise RebuildError(f"{lost[0]}. What was counted of it would be lost (--accept-loss){others}")
        return found

    def _enter(self, found: Mapping[TopicPartition, Extent], counted: Mapping[TopicPartition, Position]) -> None:
        there = {tp: extent for tp, extent in found.items() if extent.end != 0}
        self._beside.move({tp: self._position(tp, extent.start, counted) for tp, extent in there.items()})
        self._at |= {tp: extent.start for tp, extent in there.items()}
        self._ends |= {tp: extent.end for tp, extent in found.items() if extent.end is not None}

    def _put_in_place(self) -> Progress | None:
        """None where it has to begin anew."""
        self._catch_up()
        self._beside.refresh()
        deadline = time.monotonic() + self._patience
        pause = PAUSE_SECONDS[0]
        while True:
            self._catch_up()
            try:
                with self._beside.held() as held:
                    self._follow(held.positions(), held)
                    progress = self._progress({})
                    failing = held.failing()
                    if failing > 0:
                        raise RebuildError(
                            f"{failing} events fail that did not fail for the workers: see the log lines"
                        )
                    held.swap()
                    if held.conditions() != self._conditions:
                        raise Changed
            except Changed:
                return None
            except Occupied as error:
                if time.monotonic() > deadline:
                    raise RebuildError(f"{error}; what is rebuilt is kept, run this again") from None
                self._say(f"The swap waits: {error}.")
                self._wait(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, PAUSE_SECONDS[1])
            else:
                return progress

    def _catch_up(self) -> None:
        """Until a round was a quick one."""
        took = QUICK_SECONDS
        while took >= QUICK_SECONDS:
            began = time.monotonic()
            self._follow(self._beside.live_positions())
            took = time.monotonic() - began

    def _follow(self, live: Mapping[tuple[str, int], Position], held: Held | None = None) -> None:
        """Counts what the workers have counted up to these positions."""
        counted = _by_partition(live)
        new = {tp: at for tp, at in counted.items() if tp not in self._at and tp not in self._ends}
        if new:
            self._enter(self._extents_of(new, {}), new)
        while left := [tp for tp, at in self._at.items() if at < self._end(tp, counted)]:
            if self._stopping():
                raise Interrupted
            # By the time of the records, about as the workers had them, and not a partition after another.
            tp = min(left, key=lambda tp: self._reached.get(tp, 0))
            self._count(tp, self._end(tp, counted), counted)
            self._show(counted)
            if held is not None:
                held.positions()

    def _count(self, tp: TopicPartition, end: int, counted: Mapping[TopicPartition, Position]) -> None:
        start = self._at[tp]
        read = self._reader.read(tp, start, min(self._batch_records, end - start))
        batch = [record for record in read if record.offset < end]
        self._beside.prepare()
        if batch:
            try:
                self._at |= self._batches.apply(batch, self._at)
            except OffsetMoved as error:
                raise RebuildError(f"somebody else writes to what is rebuilt ({error})") from error
            except TooMuchPoison as error:
                raise RebuildError(str(error)) from error
            self._reached[tp] = batch[-1].timestamp
        else:  # a gap, as transactions and compaction leave them
            self._beside.move({tp: self._position(tp, end, counted)})
            self._at[tp] = end

    def _position(self, tp: TopicPartition, offset: int, counted: Mapping[TopicPartition, Position]) -> Position:
        return Position(offset, self._identities.get(tp.topic, counted[tp].identity))

    def _end(self, tp: TopicPartition, counted: Mapping[TopicPartition, Position]) -> int:
        at = counted[tp].offset if tp in counted else 0
        return min(at, self._ends.get(tp, at))

    def _show(self, counted: Mapping[TopicPartition, Position]) -> None:
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            self._tell(self._progress(counted))

    def _progress(self, counted: Mapping[TopicPartition, Position]) -> Progress:
        of = sum(max(at, self._end(tp, counted)) for tp, at in self._at.items())
        return Progress(sum(self._at.values()), of, self._ledger().get("consumed", 0))

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping():
            time.sleep(0.05)


def _by_partition(positions: Mapping[tuple[str, int], Position]) -> dict[TopicPartition, Position]:
    return {TopicPartition(*key): at for key, at in positions.items()}


def _program() -> str:
    """A digest of the code that the numbers depend on: half by one release and half by another they are neither's."""
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(schemas.__file__).parent):
        for file in sorted(folder.glob("*.py")):
            digest.update(file.read_bytes())
    for module in (counting, transaction, statements, rows):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
