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
    reader: Reader,
    identities: Mapping[str, str],
    counted: Mapping[TopicPartition, Position],
    rebuilt: Mapping[TopicPartition, Position],
) -> dict[TopicPartition, Extent]:
    """Of every partition that workers have counted; `identities` are those of the log's topics. Raises LogError."""
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
            start = rebuilt[tp].offset if tp in rebuilt else 0
            anew = made_anew(counted[tp], identities.get(topic))
            found[tp] = _extent(tp, counted[tp].offset, start, beginnings[tp], ends[tp], anew)
    for tp in sorted(counted.keys() - found.keys()):
        loss = f"the log has no {_name(tp)}, of which the workers have counted up to offset {counted[tp].offset}"
        found[tp] = Extent(0, 0, loss)
    return found


def made_anew(known: Position, identity: str | None) -> bool:
    """Whether the log's topic is another than the one that was meant, as far as both are known."""
    return known.identity is not None and identity is not None and known.identity != identity


def _extent(tp: TopicPartition, counted: int, rebuilt: int, beginning: int, end: int, anew: bool) -> Extent:
    start = max(rebuilt, beginning)
    if anew or end < counted:
        loss = (
            f"{_name(tp)} was made anew and ends at offset {end}; the workers have counted up to {counted} of another"
        )
        return Extent(min(start, end), min(end, counted), loss)
    if beginning > rebuilt:
        loss = f"{_name(tp)} begins at offset {beginning}: the log no longer has {rebuilt} to {beginning - 1}"
        return Extent(start, loss=loss)
    return Extent(start)


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}[{tp.partition}]"
