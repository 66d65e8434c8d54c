"""The load that the edge's figures rest on: what it sends, when, and what it takes for an answer."""

import asyncio
import gzip
import itertools
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from bench import bodies, edge_memory, load, load_runs
from bench.bodies import Kind, Requests
from bench.edge_measure import Latency, Load, Saturated, middle, ratio
from bench.edge_memory import Memory
from bench.edge_subjects import FASTAPI, OURS, OURS_ALONE
from bench.edge_tables import Measured, shares, summary, tables
from bench.load_connection import Unexpected, whole
from bench.load_runs import Closed, Open, Run
from ingest.decode import decode
from service.framing import MAX_HEAD_BYTES

KEYS = [f"{number:032d}" for number in range(20)]


@pytest.mark.parametrize("events", [1, 50])
def test_a_body_is_one_the_edge_takes_with_events_of_about_360_bytes_and_ids_of_their_own(events: int) -> None:
    made = [bodies.body(random.Random(seed), events, datetime.now(UTC)) for seed in range(200)]
    sizes = [len(body) / events for body in made]
    assert 340 < sum(sizes) / len(sizes) < 420
    requests = [decode(body) for body in made]
    assert {len(request.events) for request in requests} == {events}
    ids = [event.id for request in requests for event in request.events]
    assert len(set(ids)) == len(ids) == 200 * events


@pytest.mark.parametrize("kind", [Kind(1), Kind(2, gzip=True)])
def test_a_request_is_whole_http_with_a_browsers_headers(kind: Kind) -> None:
    for request in itertools.islice(Requests(KEYS, kind, 40).endless(), 50):
        head, _, body = request.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert line == "POST /api/v1/events HTTP/1.1"
        assert len(headers) == len(lines)
        assert len(head) < MAX_HEAD_BYTES
        assert headers["Origin"].startswith("https://")
        assert headers["Authorization"].removeprefix("Bearer ") in KEYS
        assert int(headers["Content-Length"]) == len(body)
        assert len(decode(gzip.decompress(body) if kind.gzip else body).events) == kind.events


def test_keys_are_drawn_in_proportion_to_one_over_their_rank() -> None:
    drawn = Counter(bodies.zipf(random.Random(1), 100, 100_000))
    harmonic = sum(1 / rank for rank in range(1, 101))
    for rank in (1, 2, 10, 100):
        expected = 100_000 / harmonic / rank
        assert abs(drawn[rank - 1] - expected) < 5 * expected**0.5


def test_arrivals_keep_their_rate_and_are_in_order_within_the_run() -> None:
    due = list(load_runs.arrivals(random.Random(1), 1000, 20, 5.0))
    assert due == sorted(due)
    assert 5.0 < due[0] < due[-1] < 25.0
    assert abs(len(due) - 20_000) < 1000


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [load.quantile(values, q) for q in (0.0, 0.5, 0.99, 1.0)] == [1.0, 51.0, 100.0, 100.0]
    assert load.quantile([], 0.5) == 0.0


@pytest.mark.parametrize(
    ("data", "there"),
    [
        (b"HTTP/1.1 503 ", False),
        (b"HTTP/1.1 503 X\r\ncontent-length: 3\r\n\r\nab", False),
        (b"HTTP/1.1 503 X\r\ncontent-length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 204 X\r\n\r\n", True),
    ],
)
def test_an_answer_is_judged_when_its_last_byte_is_there(data: bytes, there: bool) -> None:
    assert whole(data) is there


ACCEPTED = b'HTTP/1.1 202 Accepted\r\ncontent-length: 14\r\n\r\n{"accepted":1}'
Answer = Callable[[int], tuple[bytes, float]]
"""What the n-th request is answered, in two parts, and after how many seconds."""


def loaded(make: Callable[[Requests], Run], answer: Answer, connections: int, seconds: float) -> Run:
    """A run against a server that answers so."""

    async def run() -> Run:
        count = itertools.count()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    size = next(int(h[16:]) for h in head.split(b"\r\n") if h.startswith(b"Content-Length: "))
                    await reader.readexactly(size)
                    data, pause = answer(next(count))
                    await asyncio.sleep(pause)
                    writer.write(data[:20])
                    await writer.drain()
                    await asyncio.sleep(0)
                    writer.write(data[20:])
                    if not data or b"connection: close" in data:
                        return
            except asyncio.IncompleteReadError:
                pass
            finally:
                writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            made = make(Requests(KEYS, Kind(1), 40))
            await made.run([server.sockets[0].getsockname()[1]], connections, seconds)
            return made

    return asyncio.run(run())


def test_a_closed_loop_counts_every_answer_that_it_waited_for() -> None:
    answered = itertools.count()

    def answer(number: int) -> tuple[bytes, float]:
        next(answered)
        return ACCEPTED, 0.001

    run = loaded(Closed, answer, 4, 0.2)
    assert len(run.latencies) == next(answered) > 4
    assert min(run.latencies) >= 0.001


@pytest.mark.parametrize("make", [Closed, lambda requests: Open(requests, 200)], ids=["closed", "open"])
@pytest.mark.parametrize(
    "wrong",
    [
        b'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 14\r\n\r\n{"accepted":1}',
        b'HTTP/1.1 202 Accepted\r\ncontent-length: 14\r\n\r\n{"accepted":2}',
    ],
)
def test_any_other_answer_than_the_202_of_its_request_ends_the_run_with_what_was_answered(
    make: Callable[[Requests], Run], wrong: bytes
) -> None:
    with pytest.raises(Unexpected, match=wrong[9:12].decode()):
        loaded(make, lambda number: (wrong if number == 5 else ACCEPTED, 0.0), 2, 5)


def test_those_who_wait_for_a_server_that_stalls_are_all_charged_for_it() -> None:
    """One connection, 100 requests a second, and the first answer takes half a second: fifty are due meanwhile."""
    run = loaded(lambda requests: Open(requests, 100), lambda number: (ACCEPTED, 0.0 if number else 0.5), 1, 1.0)
    assert len(run.latencies) > 60
    assert sum(latency > 0.1 for latency in run.latencies) > 20


def test_a_connection_closed_while_it_waits_is_done_without_and_one_closed_before_its_answer_ends_the_run() -> None:
    gone = ACCEPTED.replace(b"content-length: 14", b"content-length: 14\r\nconnection: close")
    run = loaded(lambda requests: Open(requests, 100), lambda number: (gone if number == 3 else ACCEPTED, 0.0), 4, 0.5)
    assert len(run.latencies) > 20
    with pytest.raises(Unexpected, match="without an answer"):
        loaded(lambda requests: Open(requests, 100), lambda number: (b"" if number == 3 else ACCEPTED, 0.0), 4, 5)


def saturated(cpu: float) -> Saturated:
    return Saturated(cpu - 1, 1, 1000, 100, 1, 10)


def test_a_ratio_is_taken_round_by_round_so_that_a_slow_round_does_not_decide() -> None:
    ours, theirs = [saturated(10), saturated(90), saturated(11)], [saturated(20), saturated(100), saturated(22)]
    assert ratio(ours, theirs) == 0.5
    assert middle(ours).cpu == 11


def test_tables_give_each_server_its_ratio_and_the_share_of_redis() -> None:
    rounds = {OURS: [saturated(110)], OURS_ALONE: [saturated(100)], FASTAPI: [saturated(440)]}
    found = [Measured(Load(Kind(1), 100), rounds, {}), Measured(Load(Kind(50), 100), rounds, {})]
    assert summary(found)["rows"][0] == [OURS, "110", "0.25", "", "110", "0.25", ""]
    assert shares(found)["rows"][0][2] == "+10.0 %"


def test_two_edges_are_compared_with_one_that_has_as_much_to_do_as_each() -> None:
    def at(rate: float, cpu: float) -> Latency:
        return Latency(0.35, rate, 1, 2, 3, 4, cpu)

    pairs = [(at(100, 10), at(200, 11)), (at(100, 10), at(200, 30)), (at(100, 20), at(200, 20))]
    found = [Measured(Load(Kind(1), 100), {}, {}, pairs)]
    assert shares(found)["rows"] == [["1 event", "two edges at twice the rate of one, over that one", "+10.0 %"]]


def test_tables_without_a_row_are_left_out_and_the_memory_is_shown_by_the_minute_to_its_end() -> None:
    memory = Memory(500, 30, [100.0, 101.0, 102.0, 103.0])
    assert tables([]) == []
    assert edge_memory.table(memory)["rows"] == [["0", "100.0"], ["60", "102.0"], ["90", "103.0"]]
