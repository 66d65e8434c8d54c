"""How long clients are patient with a Kafka that is away, for tests that have to wait it out.

Only for what cannot succeed meanwhile: no answer comes too late on a slow machine where none can come.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from backends.log import kafka, kafka_client, kafka_reader


@contextmanager
def impatience() -> Iterator[None]:
    """Who connects or reads in the block gives up after half a second instead of four or ten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kafka_client._COMMON, "bootstrap_timeout_ms", 500)
        patch.setattr(kafka_reader, "READ_SECONDS", 0.5)
        yield


@pytest.fixture
def hasty_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer that is opened gives a record up after four seconds instead of eight."""
    monkeypatch.setattr(kafka, "DELIVERY_MS", 4_000)


@pytest.fixture
def impatient() -> Iterator[None]:
    """For a whole test, in which no Kafka is ever there."""
    with impatience():
        yield
