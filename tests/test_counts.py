"""What the event loop counts reads like the library's own metrics, to the byte."""

import re
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from service.counts import LoopCounter, LoopHistogram

BUCKETS = (0.5, 1.0, 10.0)
AMOUNTS = (0.0, 0.4999, 0.5, 0.50001, 1.0, 9.0, 10.0, 10.1, 1e9)


def counted(kind: type[Counter] | type[LoopCounter]) -> CollectorRegistry:
    registry = CollectorRegistry()
    kind("t_plain_total", "Plain.", registry=registry).inc(3)
    kind("t_never_total", "Never.", registry=registry)
    nobody = kind("t_nobody_total", "Nobody.", ["kind"], registry=registry)
    labelled = kind("t_labelled_total", 'Labelled "so".', ["route", "status"], registry=registry)
    labelled.labels("/a", "202").inc()
    labelled.labels("/a", "202").inc(2.5)
    labelled.labels("/b", "400").inc()
    labelled.labels('/"\n', "404")
    assert nobody is not labelled
    return registry


def observed(kind: type[Histogram] | type[LoopHistogram]) -> CollectorRegistry:
    registry = CollectorRegistry()
    plain = kind("t_plain_seconds", "Plain.", registry=registry, buckets=BUCKETS)
    labelled = kind("t_labelled_seconds", "Labelled.", ["route"], registry=registry, buckets=BUCKETS)
    kind("t_nobody_seconds", "Nobody.", ["route"], registry=registry, buckets=BUCKETS)
    labelled.labels("/never")
    for amount in AMOUNTS:
        plain.observe(amount)
        labelled.labels("/a").observe(amount)
    labelled.labels("/b").observe(2)
    return registry


def shown(registry: CollectorRegistry, generate: Callable[[CollectorRegistry], bytes]) -> str:
    """Without the moments at which they were made."""
    return re.sub(r"(_created(?:{.*})?) \S+", r"\1 T", generate(registry).decode())


@pytest.mark.parametrize("generate", [generate_latest, generate_openmetrics])
def test_a_scrape_shows_what_the_library_would_show(generate: Callable[[CollectorRegistry], bytes]) -> None:
    assert shown(counted(LoopCounter), generate) == shown(counted(Counter), generate)
    assert shown(observed(LoopHistogram), generate) == shown(observed(Histogram), generate)


def test_every_scrape_shows_the_numbers_of_its_moment() -> None:
    registry = CollectorRegistry()
    counter = LoopCounter("t_total", "Sentence.", ["kind"], registry=registry)
    spread = LoopHistogram("t_seconds", "Sentence.", registry=registry, buckets=BUCKETS)
    for turn in (1, 2, 3):
        counter.labels("a").inc()
        spread.observe(0.75)
        assert registry.get_sample_value("t_total", {"kind": "a"}) == turn
        assert registry.get_sample_value("t_seconds_count") == turn
        assert registry.get_sample_value("t_seconds_sum") == turn * 0.75
        assert registry.get_sample_value("t_seconds_bucket", {"le": "0.5"}) == 0
        assert registry.get_sample_value("t_seconds_bucket", {"le": "1.0"}) == turn


def test_no_name_is_there_twice() -> None:
    registry = CollectorRegistry()
    LoopCounter("t_total", "Sentence.", registry=registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        LoopCounter("t_total", "Sentence.", registry=registry)
