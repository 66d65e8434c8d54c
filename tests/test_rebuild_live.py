"""A rebuild while edges, workers and readers go on: whoever asks sees before or after, and each event counts once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from backends.log import open_reader
from backends.store.catalog import Catalog
from backends.store.engine import open_engine, read_only
from backends.store.queries import Queries
from backends.store.rebuild import RebuildError, open_beside
from tests.issuer import USER
from tests.processes import zenstep
from tests.reading import bearer, path, reading
from tests.rebuilding import Traffic, numbers
from tests.stepping import Stepping, stepping
from tests.working import until
from workers.rebuild import Rebuild


class Looping:
    """Work again and again on a thread of its own. What it raises ends it, and comes out of `stop`."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self.times = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def goes_on(self) -> None:
        """Waits until it was done some more times; statements are prepared after five."""
        times = self.times
        until(lambda: self.times > times + 6 or self._error is not None)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopping.wait(0.02):  # or they would leave no time for what they watch
                self._work()
                self.times += 1
        except BaseException as error:
            self._error = error


@contextmanager
def looping(*works: Callable[[], object]) -> Iterator[list[Looping]]:
    with ExitStack() as stack:
        started = []
        for work in works:
            started.append(Looping(work))
            stack.callback(started[-1].stop)
        yield started


class Eyes:
    """Asks for what must hold at any moment, on one connection, whose statements are prepared after a while."""

    # Of a day what readers add up: its quarters while it is open, else its own cells.
    QUERY = """
        SELECT (SELECT coalesce(sum(events), 0) FROM ledger WHERE outcome = 'counted'), (SELECT count(*) FROM seen),
            (SELECT coalesce(sum(views), 0) FROM counts WHERE grain = 900),
            (SELECT coalesce(sum(views), 0) FROM counts AS c WHERE (grain = 86400) <> EXISTS (
                SELECT 1 FROM open_days AS o WHERE o.organisation_id = c.organisation_id AND o.flow_id = c.flow_id
                AND o.bucket = c.bucket - c.bucket % 86400)),
            (SELECT coalesce(sum(sessions), 0) FROM cohorts WHERE grain = 900), (SELECT count(*) FROM sessions),
            (SELECT coalesce(sum(next_offset), 0) FROM offsets)
    """

    def __init__(self, store_url: str) -> None:
        self._engine = open_engine(store_url)
        self._connection = read_only(self._engine).connect()
        self.last: list[int] = []

    def look(self) -> None:
        with self._connection.begin():
            found = [int(value) for value in self._connection.execute(sa.text(self.QUERY)).one()]
        counted, seen, quarters, days, cohorts, sessions, _ = found
        assert (counted, quarters, cohorts) == (seen, days, sessions), "a half"
        assert all(now >= before for now, before in zip(found, self.last, strict=False)), (found, self.last)
        self.last = found

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


class Promise:
    """What a reader asks of an organisation's progress; it never goes back."""

    def __init__(self, store_url: str, running: Stepping) -> None:
        self._engine = open_engine(store_url)
        self._queries = Queries(self._engine)
        self._asked = (running.world.organisations[0], running.world.topics.events)
        self._last = 0

    def look(self) -> None:
        through = self._queries.processed_through(*self._asked) or 0
        assert through >= self._last
        self._last = through

    def close(self) -> None:
        self._engine.dispose()


class Views:
    """A member's flow over HTTP: always a 200, and views never fall."""

    def __init__(self, client: httpx.Client, running: Stepping) -> None:
        self._client = client
        self._path = path(running.flow)
        self.last = 0

    def look(self) -> None:
        answer = self._client.get(self._path, headers=bearer())
        assert answer.status_code == 200, answer.content
        views = answer.json()["totals"]["views"]
        assert views >= self.last
        self.last = views


class Sender:
    """A browser that goes through the flow again and again."""

    def __init__(self, running: Stepping) -> None:
        self._running = running
        self.sent = 0

    def send(self) -> None:
        flow = self._running.flow
        events = [
            {"eventType": "view", "flowId": flow.flow_id, "sessionId": f"s-{self.sent}-{n}", "userId": f"u-{n}"}
            for n in range(4)
        ]
        events.append({"eventType": "custom", "name": "invited"})
        answer = self._running.post("/events", {"events": events})
        assert answer.status_code == 202, answer.content
        self.sent += len(events)


def run(log_url: str, store_url: str, swaps: int) -> None:
    """So many rebuilds while everything goes on, then the accounts."""
    with ExitStack() as stack:
        running = stack.enter_context(stepping(log_url, store_url))
        catalog = Catalog(running.engine)
        catalog.add_member(running.world.organisations[0], USER)
        for bucket in ("events", "analytics"):
            catalog.set_limit(running.world.organisations[0], bucket, 1_000_000)
        client = stack.enter_context(reading(store_url))
        eyes = stack.enter_context(closing(Eyes(store_url)))
        promise = stack.enter_context(closing(Promise(store_url, running)))
        sender, views = Sender(running), Views(client, running)
        with looping(sender.send, eyes.look, views.look, promise.look) as loops:
            for _ in range(swaps):
                until(lambda counted=sender.sent: running.ledger().get("consumed", 0) > counted + 30)  # type: ignore[misc]
                with closing(open_beside(store_url)) as beside, closing(open_reader(log_url)) as reader:
                    done = Rebuild(beside, reader, 100).swap()
                assert done.events > 0
                for loop in loops:
                    loop.goes_on()
        running.counted(sender.sent)
        assert running.ledger() == {"consumed": sender.sent, "counted": sender.sent}
        zenstep(running.world.environment(), "audit", "--wait", "30")  # holds, or it exits with 1
        before = numbers(running.engine)
    with closing(open_beside(store_url)) as beside, closing(open_reader(log_url)) as reader:
        assert all(found.equal for found in Rebuild(beside, reader, 1000).compare())
        Rebuild(beside, reader, 1000).swap()
    engine = open_engine(store_url)
    assert numbers(engine) == before
    engine.dispose()


def test_traffic_goes_on_over_the_swap_and_nobody_sees_a_half(store_url: str, tmp_path: Path) -> None:
    run(f"sqlite:///{tmp_path}/log.db", store_url, swaps=2)


def test_traffic_on_kafka_goes_on_over_the_swap(kafka_servers: str, postgres_url: str) -> None:
    run(f"kafka://{kafka_servers}", postgres_url, swaps=2)


@pytest.fixture
def traffic(postgres_url: str, tmp_path: Path) -> Iterator[Traffic]:
    made = Traffic(postgres_url, f"sqlite:///{tmp_path}/log.db")
    made.send()
    made.count()
    yield made
    made.close()


@pytest.mark.parametrize("first", ["SELECT count(*) FROM counts", "SELECT count(*) FROM organisations"])
def test_a_reader_with_a_long_transaction_is_waited_for_and_nobody_waits_behind_the_swap(
    traffic: Traffic, first: str
) -> None:
    """What it sees was fixed before the rebuild was: in the new tables it would find nothing."""
    sums = "SELECT (SELECT sum(events) FROM ledger WHERE outcome = 'counted'), (SELECT count(*) FROM seen)"
    before = traffic.numbers()
    said: list[str] = []
    with traffic.engine.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
        reader.execute(sa.text(first)).all()
        with closing(Eyes(traffic.store_url)) as eyes, looping(eyes.look) as [loop]:
            loop.goes_on()
            with pytest.raises(RebuildError, match=r"what is rebuilt is kept"):
                traffic.rebuild(patience=3.0, say=said.append)
            assert loop.times > 0, "or the swap would still wait"
        [(counted, seen)] = reader.execute(sa.text(sums)).all()
        assert counted == seen > 0
    assert any(sentence.startswith("The swap waits") for sentence in said)
    traffic.rebuild(say=said.append)
    assert "Going on with the rebuild that was begun." in said
    assert traffic.numbers() == before
