"""What stops a worker until an operator decides: an offset and the log that do not fit. Never a silent reset."""

from collections.abc import Mapping

from backends.log import TopicPartition
from backends.store.offsets import AnotherTopic
from workers.limit import TooMuchPoison


class OffsetAstray(Exception):
    """The store's offset is not in the log: records were removed uncounted, or the log has lost some."""


class TopicRecreated(Exception):
    """The store's offsets are of another topic than the one that is there now."""


STOPS: dict[type[Exception], str] = {
    OffsetAstray: "offset_out_of_range",
    TopicRecreated: "topic_recreated",
    TooMuchPoison: "too_much_poison",
}
"""With the reason that metrics give."""


def astray(
    positions: Mapping[TopicPartition, int],
    beginnings: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> OffsetAstray | None:
    """Names the first of these positions that is not in the log."""
    for tp, offset in sorted(positions.items()):
        if not beginnings[tp] <= offset <= ends[tp]:
            lost = (
                f"{beginnings[tp] - offset} records are gone uncounted" if offset < beginnings[tp] else "beyond its end"
            )
            return OffsetAstray(
                f"{tp.topic}[{tp.partition}] has no offset {offset}, which is where the store stands: the log has "
                f"{beginnings[tp]} to {ends[tp]} ({lost}); decide with zenstep offsets move --topic {tp.topic} "
                f"--partition {tp.partition} --to earliest, latest or an offset"
            )
    return None


def recreated(error: AnotherTopic) -> TopicRecreated:
    """In words for an operator."""
    return TopicRecreated(
        f"{error.topic} was made anew: the store's offsets are of {error.stored}, the log has {error.found}; what was "
        f"not counted of the old one is gone; decide with zenstep offsets adopt --topic {error.topic}"
    )
