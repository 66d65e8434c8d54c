"""The metrics: each is documented, and no organisation, key, flow, user or path becomes a label or a new series."""

import uuid
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from backends.store.engine import open_engine
from service import metrics
from service.counts import LoopCounter, LoopHistogram
from tests.edges import EVENTS, HEARTBEAT, Running, bearer, edge, make_world, view
from tests.worlds import Partitions, apply, envelope, event, make_flows

KINDS = (MetricWrapperBase, LoopCounter, LoopHistogram)
METRICS = {name: value for name, value in vars(metrics).items() if isinstance(value, KINDS)}


def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Every series of ours that there is, by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name.startswith("zenstep_")
    }


def label_values() -> set[str]:
    return {value for _, labels in series() for _, value in labels}


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_has_our_prefix_its_unit_and_a_sentence(name: str) -> None:
    metric = METRICS[name]
    [described] = [family for family in metric.describe()]
    assert described.name.startswith("zenstep_")
    sentence = described.documentation
    assert sentence[0].isupper() and sentence.endswith(".") and len(sentence.split()) >= 3
    if described.type == "histogram":
        assert described.name.endswith(("_seconds", "_events"))


def test_no_two_metrics_say_the_same() -> None:
    sentences = [next(iter(metric.describe())).documentation for metric in METRICS.values()]
    assert len(METRICS) > 20
    assert len(set(sentences)) == len(sentences)


def test_the_traffic_of_many_makes_no_series_of_its_own(tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    catalog = world.catalog()
    planted: list[str] = []

    def traffic(client: httpx.Client) -> None:
        """One of everything that can be told apart, each time another one."""
        name = uuid.uuid4().hex
        organisation = catalog.create_organisation(name)
        key = catalog.create_key(organisation, name)
        flow, user = str(uuid.uuid4()), f"{name}@example.org"
        headers = bearer(key) | {"Origin": f"https://{name}.example.org", "User-Agent": name}
        fields = {"flowId": flow, "userId": user, "sessionId": name, "name": name, "url": f"https://{name}/"}
        running = Running(world._replace(keys=[key]), client)
        good = {"events": [view(**fields), {"eventType": "custom", **fields}]}
        bad = {"events": [view(**fields | {"flowId": name})]}
        assert running.post(good, headers=headers).status_code == 202
        assert running.post(bad, headers=headers).status_code == 400
        assert client.get(f"{HEARTBEAT}?key={key}&{name}", headers=headers).status_code == 200
        assert client.get(f"{HEARTBEAT}?key={name}").status_code == 401
        assert client.get(f"/{name}/{flow}").status_code == 404
        assert client.request("PROPFIND", EVENTS).status_code == 405
        assert running.post(b"", headers={"Content-Type": f"application/{name}"}).status_code == 415
        planted.extend([name, organisation, key, flow, user])

    with edge(world) as client:
        traffic(client)
        first = series()
        for _ in range(10):
            traffic(client)
    assert series() == first
    values = label_values()
    assert values >= {"/api/v1/events", "/api/v1/heartbeat", "202", "POST", "other"}
    assert not [value for value in values for secret in planted if secret in value]


def test_what_a_worker_counts_makes_no_series_of_its_own(tmp_path: Path) -> None:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    engine = open_engine(world.settings.store_url)
    log = Partitions()
    planted: list[str] = []

    def work(engine: sa.Engine) -> None:
        name = uuid.uuid4().hex
        organisation, [flow] = make_flows(engine, [1])
        fields = {"session": name, "anon": name, "name": name}
        events = [
            event(flow=flow.flow_id, **fields),
            event("custom", **fields),
            event(flow=str(uuid.uuid4()), **fields),
            event(flow=flow.flow_id, time=0, **fields),
        ]
        apply(engine, log.record(envelope(organisation, *events), envelope(str(uuid.uuid4()), *events), b"?"))
        planted.extend([name, organisation, flow.flow_id, *(e.id for e in events)])

    work(engine)
    first = series()
    for _ in range(5):
        work(engine)
    engine.dispose()
    assert series() == first
    values = label_values()
    assert values >= {log.topic, "unknown_flow", "unknown_organisation", "too_old", "unreadable"}
    assert not [value for value in values for secret in planted if secret in value]


def test_the_edge_counts_what_it_takes_and_what_it_refuses(tmp_path: Path) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0

    names: list[tuple[str, dict[str, str]]] = [
        ("zenstep_events_received_total", {}),
        ("zenstep_events_accepted_total", {}),
        ("zenstep_heartbeats_accepted_total", {}),
        ("zenstep_refusals_total", {"reason": "invalid"}),
        ("zenstep_refusals_total", {"reason": "unauthorized"}),
        ("zenstep_http_requests_total", {"route": EVENTS, "method": "POST", "status": "202"}),
        ("zenstep_http_request_seconds_count", {"route": EVENTS}),
    ]
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    before = [value(name, **labels) for name, labels in names]
    with edge(world) as client:
        running = Running(world, client)
        running.post({"events": [view()] * 3})
        running.post({"events": [view()] * 2})
        running.post({"events": []})
        client.post(EVENTS)
        client.get(HEARTBEAT, headers=bearer(world.keys[0]))
    after = [value(name, **labels) for name, labels in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [5, 5, 1, 1, 1, 2, 4]
