"""Another organisation's id costs the same work as one that does not exist, so that time does not tell them apart.

Held by the statements that the store is sent, with cold caches and warm ones: a timed test would fail by chance.
"""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backends.store.catalog import Flow, Step
from backends.store.engine import open_engine
from backends.store.migrate import migrate
from tests import edges, reading
from tests.edges import bearer
from tests.hostile.test_enumeration import ANALYTICS, CASES, FLOW_ID, FLOW_STEP

_SPACE = re.compile(r"\s+")


@contextmanager
def statements() -> Iterator[list[str]]:
    """What every engine of this process is sent meanwhile, without its values."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append(_SPACE.sub(" ", statement))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.mark.parametrize(("method", "path", "kind", "body"), CASES, ids=[f"{m} {p}" for m, p, *_ in CASES])
def test_the_edge_does_the_same_work(method: str, path: str, kind: str, body: Any, tmp_path: Path) -> None:
    work = []
    for n, foreign in enumerate((True, False)):
        folder = f"sqlite:///{tmp_path}/{n}"
        world = edges.make_world(f"{folder}-log.db", f"{folder}-store.db")
        steps = [Step(FLOW_STEP, 0, "One")]
        world.catalog().import_flow(Flow(world.organisations[0], FLOW_ID, "Theirs", "checklist", steps, 1))
        asked = (FLOW_ID, FLOW_STEP)[kind == "step"] if foreign else str(uuid.uuid4())
        with edges.edge(world) as client, statements() as sent:
            for _ in range(2):  # with cold caches, then with warm ones
                url = "/api/v1" + path.replace("{id}", asked)
                answer = client.request(method, url, headers=bearer(world.keys[1]), json=body)
                assert answer.status_code == 404
        work.append(sent)
    assert work[0] == work[1] != []


@pytest.mark.parametrize("path", ANALYTICS)
def test_the_reader_does_the_same_work(path: str, tmp_path: Path) -> None:
    store_url = f"sqlite:///{tmp_path}/reader.db"
    engine = open_engine(store_url)
    migrate(engine)
    world = reading.make_world(engine)
    work = []
    with reading.reading(store_url) as client:
        for asked in (world.theirs.flow_id, str(uuid.uuid4())):
            with statements() as sent:
                answer = client.get("/api/v1" + path.replace("{id}", asked), headers=reading.bearer())
                assert answer.status_code == 404
            work.append(sent)
    assert work[0] == work[1] != []
    engine.dispose()
