"""The worker's benchmarks measure what they say: their topics, their peers' counting, their tables."""

import importlib
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench import growth, worker
from bench.worker_events import Shape, browser, catalogue, partition_of, values, weights
from bench.worker_load import event, requests
from bench.worker_run import Figure, median
from ingest import decode
from schemas import records
from schemas.records import Envelope, RecordEvent

PEERS = Path(__file__).parents[1] / "bench" / "peers"
NOW = 1_795_000_000_000
SMALL = Shape(events=1_003, organisations=5, partitions=3)


def envelopes(shape: Shape) -> list[Envelope]:
    lines = [records.decode(value) for _, value in values(shape, NOW)]
    return [line for line in lines if isinstance(line, Envelope)]


def events(shape: Shape) -> list[RecordEvent]:
    return [made for envelope in envelopes(shape) for made in envelope.events]


@pytest.mark.parametrize("per_record", [1, 10, 50])
def test_a_topic_has_exactly_so_many_events_each_with_an_id_of_its_own(per_record: int) -> None:
    shape = SMALL._replace(per_record=per_record, job="full")
    assert len({made.id for made in events(shape)}) == shape.events
    assert {len(envelope.events) for envelope in envelopes(shape)[:-1]} == {per_record}


def test_every_event_is_of_a_flow_and_a_step_of_its_organisation() -> None:
    known = {
        (flow.organisation, flow.flow_id): {step.step_id for step in flow.steps}
        for flows in catalogue(SMALL.organisations)
        for flow in flows
    }
    for envelope in envelopes(SMALL):
        for made in envelope.events:
            assert made.flow is not None
            steps = known[envelope.org, made.flow]
            assert made.step is None or made.step in steps


def test_the_bare_job_has_events_of_nobody_and_the_full_one_of_somebody() -> None:
    assert {(made.session, made.user, made.anon) for made in events(SMALL)} == {(None, None, None)}
    assert all(made.session and made.user and made.anon for made in events(SMALL._replace(job="full")))


def test_events_are_of_the_hour_before() -> None:
    assert all(NOW - 3_601_000 <= (made.time or 0) <= NOW for made in events(SMALL))


def test_an_organisation_is_in_one_partition() -> None:
    found = {(records.decode(value).org, partition) for partition, value in values(SMALL, NOW)}
    assert found == {(organisation, partition_of(organisation, 3)) for organisation, _ in found}


def test_zipf_has_the_second_send_half_as_much_as_the_first() -> None:
    shape = SMALL._replace(events=20_000, per_record=1)
    sent = Counter(envelope.org for envelope in envelopes(shape))
    first, second = (sent[flows[0].organisation] for flows in catalogue(5)[:2])
    assert second / first == pytest.approx(0.5, abs=0.05)
    assert weights(3, "uniform") == [1, 1, 1]


def test_a_browser_sees_the_steps_of_a_tour_in_order() -> None:
    flows = catalogue(1)[0]
    positions = {step.step_id: step.position for flow in flows for step in flow.steps}
    tour = list(itertools.islice(browser(flows, random.Random(1)), 500))
    for _, theirs in itertools.groupby(tour, key=lambda made: made["session"]):
        views = [positions[made["step"]] for made in theirs if made["type"] == "view" and "step" in made]
        assert views == list(range(len(views)))


def test_an_edge_takes_what_the_load_sends() -> None:
    content = next(requests(catalogue(2), ["k" * 32, "l" * 32], 10))
    head, _, body = content.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert len(decode.decode(body).events) == 10


def test_a_marker_is_an_event_of_now() -> None:
    made = event({"type": "view", "flow": "f", "session": "s"}, random.Random(1))
    assert {"eventType", "flowId", "sessionId", "id", "timestamp"} == set(made)


class TestPeers:
    """They all write through bench/peers/worker_store.py."""

    @pytest.fixture
    def database(self, postgres_url: str) -> str:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute((PEERS / "worker_tables.sql").read_bytes())
        return postgres_url

    @pytest.fixture
    def store(self, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        monkeypatch.syspath_prepend(str(PEERS))
        made = importlib.import_module("worker_store").Store(database)
        yield made
        made._connection.close()
        sys.modules.pop("worker_store")

    def test_a_batch_that_comes_again_changes_nothing(self, store: Any, database: str) -> None:
        batch = [value for _, value in values(SMALL, NOW)]
        store.count(batch[:60])
        store.count(batch[40:])
        store.count(batch)
        kinds = Counter(made.type for made in events(SMALL))
        with psycopg.connect(database) as connection:
            query = "SELECT sum(views), sum(completions), sum(skips), sum(dismissals) FROM peer_counts"
            counted = connection.execute(query).fetchone()
            seen = connection.execute("SELECT count(*) FROM peer_seen").fetchone()
        assert counted is not None and seen is not None
        assert [int(count) for count in counted] == [kinds[kind] for kind in ("view", "complete", "skip", "dismiss")]
        assert seen[0] == SMALL.events


OURS, PEER, FASTER_PEER = (
    Figure("ours", 30_000, 10.0, 8.0, 100),
    Figure("kafka-python", 10_000, 20.0, 9.0, 80),
    Figure("quixstreams", 20_000, 30.0, 9.0, 90),
)


def test_the_table_sets_each_beside_the_best_peer() -> None:
    rows = worker.rows([OURS, PEER, FASTER_PEER], {"ours": "", "kafka-python": "3.0", "quixstreams": "3.2"})
    assert [(row[0], row[2]) for row in rows] == [
        ("ours", "1.50x"),
        ("kafka-python 3.0", "0.50x"),
        ("quixstreams 3.2", "1.00x"),
    ]


def test_the_table_of_ours_alone_sets_it_beside_none() -> None:
    assert worker.rows([OURS], {"ours": ""}) == [["ours", "30,000", "", "10.0", "8.0", "100"]]


def test_a_median_is_of_each_number_on_its_own() -> None:
    runs = [OURS, OURS._replace(worker_us=9.0, events_per_second=5), OURS._replace(worker_us=12.0)]
    assert median(runs) == OURS


def test_growth_is_the_cost_of_both_over_the_first_row() -> None:
    found = [("1", OURS), ("10", OURS._replace(worker_us=12.0, postgres_us=15.0))]
    made = growth.table("Events a record", SMALL, found)
    assert [row[4] for row in made["rows"]] == ["1.00x", "1.50x"]


def test_growth_varies_one_thing_in_each_table() -> None:
    base = Shape("full", 1_000)
    for title, (own, points) in growth.grown(base).items():
        varied = [
            {name for name in Shape._fields if getattr(point.shape, name) != getattr(own, name)}
            | ({"seen"} if point.seen else set())
            | ({"workers"} if point.workers > 1 else set())
            for point in points
        ]
        assert len(set().union(*varied)) == 1, title
        assert json.dumps([point.name for point in points])
