"""The ranges of a topic that `zenstep replay` reads, how far it has come, and the file that keeps it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from backends.log import OffsetOutOfRange, Reader, Record, TopicPartition
from cli.long import LongRun
from cli.parameters import TIME

READ_RECORDS = 500


class Position(NamedTuple):
    """An offset, or a time (epoch ms)."""

    value: int
    is_offset: bool


class PositionType(click.ParamType[Position]):
    """Digits alone are an offset."""

    name = "OFFSET|TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Position:
        if str(value).isdecimal():
            return Position(int(value), is_offset=True)
        return Position(TIME.convert(value, param, ctx), is_offset=False)


class Stretch(msgspec.Struct):
    """Offsets [start, end) of a partition; `reached` is the next to be replayed."""

    partition: int
    start: int
    end: int
    reached: int


def stretches(
    reader: Reader, topic: str, partition: int | None, since: Position | None, until: Position | None
) -> list[Stretch]:
    """What there is now: what is appended later is not part of it. Raises UnknownTopic, OffsetOutOfRange."""
    count = reader.partitions(topic)
    if partition is not None and partition >= count:
        raise OffsetOutOfRange(f"{topic} has the partitions 0 to {count - 1}")
    tps = [TopicPartition(topic, p) for p in (range(count) if partition is None else [partition])]
    beginnings, ends = reader.beginning_offsets(tps), reader.end_offsets(tps)
    found = []
    for tp in tps:
        start = beginnings[tp] if since is None else _offset(reader, tp, since)
        end = ends[tp] if until is None else min(ends[tp], _offset(reader, tp, until))
        if not beginnings[tp] <= start <= ends[tp]:
            raise OffsetOutOfRange(f"{tp.topic}[{tp.partition}] has the offsets {beginnings[tp]} to {ends[tp]}")
        found.append(Stretch(tp.partition, start, max(start, end), start))
    return found


def _offset(reader: Reader, tp: TopicPartition, position: Position) -> int:
    return position.value if position.is_offset else reader.offset_at(tp, position.value)


def read(
    reader: Reader, topic: str, ranges: list[Stretch], run: LongRun
) -> Iterator[tuple[Stretch, list[Record], int]]:
    """Partition by partition: the records, and what `reached` is to be once they are replayed."""
    for stretch in ranges:
        while stretch.reached < stretch.end and not run.stopped:
            most = min(run.most(READ_RECORDS), stretch.end - stretch.reached)
            found = reader.read(TopicPartition(topic, stretch.partition), stretch.reached, most)
            records = [record for record in found if record.offset < stretch.end]
            yield stretch, records, records[-1].offset + 1 if records else stretch.end


class State(msgspec.Struct):
    """What the file holds. `asked` tells one replay from another."""

    asked: dict[str, str | int | None]
    ranges: list[Stretch]


class StateFile:
    """Keeps a replay's ranges, or nothing where there is no file to keep them in."""

    def __init__(self, path: str | None, asked: dict[str, str | int | None]) -> None:
        self._path = Path(path) if path is not None else None
        self._asked = asked

    def load(self) -> list[Stretch] | None:
        """None where nothing was kept yet. Raises ValueError for a file of another replay, or of none."""
        if self._path is None or not self._path.exists():
            return None
        try:
            state = msgspec.json.decode(self._path.read_bytes(), type=State)
        except msgspec.DecodeError:
            raise ValueError(f"{self._path} is not the state of a replay") from None
        if state.asked != self._asked:
            raise ValueError(f"{self._path} is the state of another replay")
        return state.ranges

    def save(self, ranges: list[Stretch]) -> None:
        """The file is whole whenever the process ends."""
        if self._path is None:
            return
        written = self._path.with_name(self._path.name + ".new")
        with written.open("wb") as file:
            file.write(msgspec.json.encode(State(self._asked, ranges)))
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._path)
