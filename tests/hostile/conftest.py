"""One edge for the hostile clients of a file, on a log and a store of its own."""

from collections.abc import Iterator

import pytest

from tests.edges import Running, World, edge, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("hostile")
    return make_world(f"sqlite:///{folder}/log.db", f"sqlite:///{folder}/store.db")


@pytest.fixture(scope="module")
def running(world: World) -> Iterator[Running]:
    with edge(world) as client:
        yield Running(world, client)
