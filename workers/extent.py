"""How far a rebuild can go: what of the records that the workers have counted the log still has."""

from collections.abc import Mapping
from typing import NamedTuple

from backends.log import Reader, TopicPartition, UnknownTopic
from backends.store.rebuild import Position


class Extent(NamedTuple):
    """Of one partition: where to begin, and what is lost of it, None where nothing is.

    Its end is where the workers are; `end` is set where the log ends before that.
    """

    start: int
    end: int | None = None
    loss: str | None = None


def extents(
    reader: Reader, counted: Mapping[TopicPartition, Position], rebuilt: Mapping[TopicPartition, int]
) -> dict[TopicPartition, Extent]:
    """Of every partition that workers have counted. Raises LogError."""
    found: dict[TopicPartition, Extent] = {}
    for topic in sorted({tp.topic for tp in counted}):
        try:
            partitions = reader.partitions(topic)
        except UnknownTopic:
            partitions = 0
        there = [tp for tp in counted if tp.topic == topic and tp.partition < partitions]
        beginnings = reader.beginning_offsets(there) if there else {}
        ends = reader.end_offsets(there) if there else {}
        for tp in there:
            found[tp] = _extent(tp, counted[tp].offset, rebuilt.get(tp, 0), beginnings[tp], ends[tp])
    for tp in sorted(counted.keys() - found.keys()):
        loss = f"the log has no {_name(tp)}, of which the workers have counted up to offset {counted[tp].offset}"
        found[tp] = Extent(0, 0, loss)
    return found


def _extent(tp: TopicPartition, counted: int, rebuilt: int, beginning: int, end: int) -> Extent:
    start = max(rebuilt, beginning)
    if end < counted:
        loss = f"{_name(tp)} ends at offset {end}, but the workers have counted up to {counted}: it was made anew"
        return Extent(min(start, end), end, loss)
    if beginning > rebuilt:
        loss = f"{_name(tp)} begins at offset {beginning}: the log no longer has {rebuilt} to {beginning - 1}"
        return Extent(start, loss=loss)
    return Extent(start)


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}[{tp.partition}]"
