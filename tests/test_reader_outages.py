"""The reader while what it needs is away or broken, over real HTTP, and many requests at once."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backends.store.engine import open_engine, ping
from backends.store.migrate import migrate
from schemas import tables as t
from tests.issuer import ISSUER, SigningKey, secret_token, serving_jwks
from tests.reading import RANGE, World, bearer, make_world, path, reading
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres

UNAUTHORIZED = b'{"error":"Unauthorized"}'
UNAVAILABLE = b'{"error":"Service unavailable"}'
STRANGER = "99999999-9999-4999-8999-999999999999"
both_routes = pytest.mark.parametrize("export", [False, True], ids=["json", "csv"])


@pytest.fixture
def world(store_url: str) -> Iterator[World]:
    engine = open_engine(store_url)
    yield make_world(engine)
    engine.dispose()


@pytest.fixture
def client(store_url: str, world: World) -> Iterator[httpx.Client]:
    with reading(store_url) as client:
        yield client


def gone(kind: str, folder: Path) -> str:
    """The address of a store that cannot be reached."""
    if kind == "postgres":
        return f"postgresql://postgres@127.0.0.1:{free_port()}/zenstep"
    (folder / "store.db").mkdir()
    return f"sqlite:///{folder}/store.db"


@both_routes
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_while_the_store_is_away_it_is_a_503_that_says_when_to_come_back(
    kind: str, export: bool, tmp_path: Path
) -> None:
    with reading(gone(kind, tmp_path)) as client:
        for credential in (secret_token(), "k" * 32):
            found = client.get(path(STRANGER, export), headers=bearer(credential))
            assert (found.status_code, found.content) == (503, UNAVAILABLE)
            assert int(found.headers["retry-after"]) > 0
        assert client.get(path(STRANGER, export)).content == UNAUTHORIZED
        assert client.get(path("no-uuid", export), headers=bearer("no token")).content == UNAUTHORIZED


def test_a_postgres_without_tables_is_a_503_until_they_are_made(private_postgres: Postgres) -> None:
    url = f"{private_postgres.url}/postgres"
    engine = open_engine(url)
    assert ping(engine) == "no tables; run zenstep migrate"
    with reading(url) as client:
        for export in (False, True):
            found = client.get(path(STRANGER, export), headers=bearer(secret_token()))
            assert (found.status_code, found.content) == (503, UNAVAILABLE)
        migrate(engine)
        assert ping(engine) is None
        assert client.get(path(STRANGER), headers=bearer(secret_token())).status_code == 404
    engine.dispose()


def test_a_postgres_that_stops_is_a_503_until_it_is_back(private_postgres: Postgres) -> None:
    url = f"{private_postgres.url}/postgres"
    engine = open_engine(url)
    try:
        migrate(engine)
        world = make_world(engine)
        with reading(url) as client:
            assert client.get(path(world.flow), headers=bearer()).status_code == 200
            private_postgres.stop()
            assert client.get(path(world.flow), headers=bearer()).content == UNAVAILABLE
            private_postgres.start()
            assert client.get(path(world.flow), headers=bearer()).status_code == 200
    finally:
        engine.dispose()


@both_routes
def test_a_fault_of_ours_is_a_500_that_tells_nothing(
    client: httpx.Client, world: World, export: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with world.engine.begin() as connection:
        connection.execute(t.counts.update().values(users=b"no sketch"))
    found = client.get(path(world.flow, export), params=RANGE, headers=bearer())
    assert (found.status_code, found.content) == (500, b'{"error":"Internal server error"}')
    assert found.headers["content-type"] == "application/json"
    assert "request failed" in caplog.text


def test_more_requests_at_once_than_threads_are_all_answered(client: httpx.Client, world: World) -> None:
    found: list[int] = []
    asking = [
        threading.Thread(target=lambda: found.append(client.get(path(world.flow), headers=bearer()).status_code))
        for _ in range(20)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert found == [200] * 20


def test_while_no_key_could_be_fetched_a_token_is_neither_taken_nor_refused(store_url: str, world: World) -> None:
    key = SigningKey("ES256")
    with serving_jwks(key) as gone:
        url = gone.url
    with reading(store_url, jwt_algorithm="ES256", jwks_url=url, jwt_issuer=ISSUER) as client:
        found = client.get(path(world.flow), headers=bearer(key.token()))
        assert (found.status_code, found.content) == (503, UNAVAILABLE)
        assert int(found.headers["retry-after"]) > 0
        assert client.get(path(world.flow), headers=bearer("no token")).content == UNAUTHORIZED
