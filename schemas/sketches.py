"""Sketches as the store keeps them: distinct users (HLL) and seconds to complete (KLL). All of them merge.

Sizes are chosen for the contract: 16,384 registers give a standard error of 0.8 % (and exact answers to some
thousand users), a KLL of k = 350 a rank error of 0.8 %. Changing either changes what stored bytes can promise.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

# datasketches imports numpy, and its OpenBLAS starts a thread a core, for algebra that nobody does here.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sqlalchemy as sa
from datasketches import hll_sketch, hll_union, kll_floats_sketch, tgt_hll_type

from schemas.tables import sketch_of

LG_K = 14
KLL_K = 350


def add_users(stored: bytes | None, users: Iterable[str]) -> bytes:
    """The sketch with these users in it."""
    sketch = hll_sketch.deserialize(stored) if stored else hll_sketch(LG_K, tgt_hll_type.HLL_8)
    for user in users:
        sketch.update(user)
    return bytes(sketch.serialize_compact())


def count_users(stored: Iterable[bytes]) -> int:
    """How many distinct users all these sketches hold together."""
    return round(float(_users(stored).get_estimate()))


def add_seconds(stored: bytes | None, seconds: Iterable[float]) -> bytes:
    """The sketch with these durations in it."""
    sketch = kll_floats_sketch.deserialize(stored) if stored else kll_floats_sketch(KLL_K)
    for value in seconds:
        sketch.update(value)
    return bytes(sketch.serialize())


def median(stored: Iterable[bytes]) -> float | None:
    """The median of all these sketches together, None where they are empty."""
    merged = _seconds(stored)
    return None if merged.is_empty() else float(merged.get_quantile(0.5))


def users_together(stored: Iterable[bytes]) -> bytes:
    """The sketch of the users of all these sketches, one or more."""
    return bytes(_users(stored).get_result(tgt_hll_type.HLL_8).serialize_compact())


def seconds_together(stored: Iterable[bytes]) -> bytes:
    """The sketch of the durations of all these sketches, one or more."""
    return bytes(_seconds(stored).serialize())


def _users(stored: Iterable[bytes]) -> hll_union:
    union = hll_union(LG_K)
    for data in stored:
        union.update(hll_sketch.deserialize(data))
    return union


def _seconds(stored: Iterable[bytes]) -> kll_floats_sketch:
    merged = kll_floats_sketch(KLL_K)
    for data in stored:
        merged.merge(kll_floats_sketch.deserialize(data))
    return merged


class Kind(NamedTuple):
    """What is done with the sketches of one kind."""

    add: Callable[[bytes | None, Iterable[Any]], bytes]
    together: Callable[[Iterable[bytes]], bytes]


_KINDS = {"users": Kind(add_users, users_together), "seconds": Kind(add_seconds, seconds_together)}


def kind_of(cells: sa.Table) -> Kind:
    """What the sketches of a table of cells are, by the name of their column."""
    (name,) = sketch_of(cells)
    return _KINDS[name]
