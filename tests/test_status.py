"""GET /snippet-status: whether, when and where the snippet was seen, from heartbeats that a worker has counted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from backends.store.engine import open_engine
from backends.store.migrate import migrate
from backends.store.small import SmallReads
from schemas.records import Heartbeat
from tests.edges import bearer
from tests.servers.postgres import Postgres
from tests.stepping import Stepping, stepping
from tests.working import until
from tests.worlds import NOW, Partitions, apply, make_flows, new_id
from workers.batch import HOSTS


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Stepping]:
    with stepping(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db") as started:
        yield started


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def beat(running: Stepping, origin: str | None, key: int = 0) -> None:
    headers = bearer(running.world.keys[key]) | ({"Origin": origin} if origin else {})
    assert running.client.get("/api/v1/heartbeat", headers=headers).content == b'{"ok":true}'


def test_before_the_first_heartbeat_it_is_not_installed(running: Stepping) -> None:
    beat(running, "https://theirs.example.org", key=1)
    running.counted(1)
    answer = running.get("/snippet-status")
    assert (answer.status_code, answer.content) == (200, b'{"installed":false,"lastSeenAt":null,"hosts":[]}')
    assert answer.headers["cache-control"] == "no-store"


def test_a_heartbeat_shows_with_its_host_once_it_is_counted(running: Stepping) -> None:
    beat(running, "https://app.example.org")
    running.counted(1)
    beat(running, "https://www.example.org:8443")
    running.counted(2)
    beat(running, None)
    running.counted(3)
    found = running.get("/snippet-status").json()
    assert (found["installed"], found["hosts"]) == (True, ["www.example.org", "app.example.org"])
    assert found["lastSeenAt"].endswith("Z")


def test_the_hosts_of_an_organisation_are_bounded_and_the_oldest_goes_first(engine: sa.Engine) -> None:
    organisation, _ = make_flows(engine, [])
    other, _ = make_flows(engine, [])
    log = Partitions()
    beats = [(organisation, f"h{n:03}.example.org", NOW + n) for n in range(HOSTS + 5)]
    beats = [*beats[::2], *beats[1::2], (organisation, "h001.example.org", NOW + 1000), (other, "o.example.org", NOW)]
    for start in range(0, len(beats), 30):
        lines = [Heartbeat(v=1, org=o, received=at, id=new_id(), host=h) for o, h, at in beats[start : start + 30]]
        apply(engine, log.record(*lines))
    hosts = list(SmallReads(engine).hosts(organisation))
    assert hosts == ["h001.example.org", *(f"h{n:03}.example.org" for n in range(HOSTS + 4, 5, -1))]
    assert list(SmallReads(engine).hosts(other)) == ["o.example.org"]


def test_while_the_store_is_away_it_is_a_503_and_writes_go_on(private_postgres: Postgres, tmp_path: Path) -> None:
    url = f"{private_postgres.url}/postgres"
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()
    with stepping(f"sqlite:///{tmp_path}/log.db", url, worker=False) as running:
        until(lambda: running.get("/flows").status_code == 200)  # a busy machine's first look may be a 503
        assert running.get("/snippet-status").status_code == 200
        private_postgres.stop()
        answer = running.get("/snippet-status")
        assert (answer.status_code, answer.content) == (503, b'{"error":"Service unavailable"}')
        assert int(answer.headers["retry-after"]) > 0
        assert running.get("/flows").json()["flows"]
        running.taken(f"/steps/{running.steps[0]}/health", {"found": True})
        private_postgres.start()
        until(lambda: running.get("/snippet-status").status_code == 200)
