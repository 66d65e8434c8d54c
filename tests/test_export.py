"""The CSV: RFC 4180, the numbers of the JSON, harmless in a spreadsheet, and never a file that only looks whole."""

import csv
import io
import re
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from starlette.applications import Starlette

from backends.limits import Limiter, MemoryLimits
from backends.store.catalog import Catalog, Flow, Step
from backends.store.engine import open_engine
from backends.store.queries import Queries
from readers import export, ranges
from readers.analytics import CHUNK, Cells
from readers.app import Reader
from readers.cors import Cors
from readers.endpoint import Gate
from readers.ranges import Interval, Range
from readers.tokens import from_settings
from schemas import tables as t
from service.clients import Clients
from service.settings import Settings
from tests.issuer import ISSUER, SECRET
from tests.reading import RANGE, World, bearer, make_world, path, reading
from tests.running import serving

ENOUGH_SECONDS = 20.0
HEADER = [
    *("start", "stepPosition", "stepId", "stepName"),
    *("views", "completions", "skips", "dismissals", "sessions", "uniqueUsers", "dropOff", "dropOffRate"),
]
NOTHING = Cells([], [])


def flow(name: str = "Flow", *steps: str) -> Flow:
    made = [Step(str(uuid.uuid4()), position, step) for position, step in enumerate(steps)]
    return Flow(str(uuid.uuid4()), str(uuid.uuid4()), name, "tour", made)


def days(start: str, end: str) -> Range:
    return ranges.parse(start, end, None, None, datetime.now(UTC))


def nothing(_: Sequence[Interval]) -> Cells:
    return NOTHING


def parsed(text: str | bytes) -> list[list[str]]:
    text = text.decode() if isinstance(text, bytes) else text
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


# The file


def test_a_row_for_the_flow_and_one_for_each_step_by_day() -> None:
    made = flow("Flow", "Welcome", "Invite")
    rows = parsed(b"".join(export.rows(made, days("2026-05-01", "2026-05-03"), nothing)))
    zeros = ["0"] * 7 + ["0.0"]
    assert rows == [
        HEADER,
        ["2026-05-01T00:00:00+00:00", "", "", "", *["0"] * 6, "", ""],
        ["2026-05-01T00:00:00+00:00", "0", made.steps[0].step_id, "Welcome", *zeros],
        ["2026-05-01T00:00:00+00:00", "1", made.steps[1].step_id, "Invite", *zeros],
        ["2026-05-02T00:00:00+00:00", "", "", "", *["0"] * 6, "", ""],
        ["2026-05-02T00:00:00+00:00", "0", made.steps[0].step_id, "Welcome", *zeros],
        ["2026-05-02T00:00:00+00:00", "1", made.steps[1].step_id, "Invite", *zeros],
    ]


def test_lines_end_as_rfc_4180_has_it_and_quotes_are_doubled() -> None:
    made = flow("Flow", 'say "hi", then\r\nleave')
    text = b"".join(export.rows(made, days("2026-05-01", "2026-05-02"), nothing)).decode()
    assert text.endswith("\r\n")
    assert '"say ""hi"", then\r\nleave"' in text
    assert text.count("\r\n") == 3 + 1
    assert "\n" not in text.replace("\r\n", "")


@settings(deadline=None)
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=5))
def test_names_of_any_kind_come_back_from_a_parser(names: list[str]) -> None:
    rows = parsed(b"".join(export.rows(flow("Flow", *names), days("2026-05-01", "2026-05-02"), nothing)))
    assert all(len(row) == len(HEADER) for row in rows)
    assert [row[3] for row in rows[2:]] == [export.cell(name) for name in names]


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"], ids=repr)
def test_a_cell_that_a_spreadsheet_would_run_is_text(first: str) -> None:
    name = f"{first}cmd|' /C calc'!A0"
    rows = parsed(b"".join(export.rows(flow("Flow", name), days("2026-05-01", "2026-05-02"), nothing)))
    assert rows[2][3] == f"'{name}"


def test_harmless_text_and_numbers_are_left_alone() -> None:
    for name in ("Step 1", "a=b", "'quoted", "", " =1"):
        assert export.cell(name) == name
    assert export.cell(-1) == "-1"
    assert export.cell(0.25) == "0.25"


# Its name


@given(name=st.text())
def test_the_file_name_is_harmless_whatever_the_flow_is_called(name: str) -> None:
    found = export.file_name(flow(name), days("2026-05-01", "2026-06-01"))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,59})?-2026-05-01-2026-05-31\.csv", found)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Onboarding tour, v2", "onboarding-tour-v2"),
        ('x"; filename="evil.exe', "x-filename-evil-exe"),
        ("../../etc/passwd", "etc-passwd"),
        ("a\r\nSet-Cookie: b", "a-set-cookie-b"),
        ("Привет", "flow"),
        ("", "flow"),
        ("x" * 255, "x" * 60),
    ],
)
def test_what_the_file_is_called(name: str, expected: str) -> None:
    found = export.file_name(flow(name), days("2026-05-01", "2026-05-02"))
    assert found == f"{expected}-2026-05-01-2026-05-01.csv"


# Bounded memory


def test_rows_are_read_only_as_they_are_asked_for() -> None:
    asked: list[Interval] = []

    def read(intervals: Sequence[Interval]) -> Cells:
        asked.extend(intervals)
        return NOTHING

    chosen = days("2026-01-01", "2026-04-11")
    rows = export.rows(flow("Flow", "a", "b"), chosen, read)
    assert asked == []
    for chunk in range(1, 4):
        next(rows)
        assert asked == chosen.intervals[: chunk * CHUNK]
    assert len(parsed(b"".join(rows))) == (100 - 3 * CHUNK) * 3
    assert asked == chosen.intervals


# Over HTTP, on both stores


@pytest.fixture
def world(store_url: str) -> Iterator[World]:
    engine = open_engine(store_url)
    yield make_world(engine)
    engine.dispose()


@pytest.mark.parametrize(("interval", "zone"), [("day", "UTC"), ("day", "Asia/Kathmandu"), ("hour", "Europe/Berlin")])
def test_the_numbers_are_those_of_the_json(store_url: str, world: World, interval: str, zone: str) -> None:
    parameters = RANGE | {"interval": interval, "timezone": zone}
    with reading(store_url) as client:
        found = client.get(path(world.flow, export=True), params=parameters, headers=bearer())
        document = client.get(path(world.flow), params=parameters, headers=bearer()).json()
        rows = [dict(zip(HEADER, row, strict=True)) for row in parsed(found.content)[1:]]
        flow_rows = [row for row in rows if not row["stepId"]]
        names = ("views", "completions", "skips", "dismissals", "sessions", "uniqueUsers")
        assert [[row["start"], *(int(row[name]) for name in names)] for row in flow_rows] == [
            [point["start"], *(point[name] for name in names)] for point in document["series"]
        ]
        busy = [row["start"] for row in flow_rows if int(row["views"])]
        assert len(busy) == 3
        for start in busy:
            day = parameters | {"from": start, "to": _next(start, flow_rows)}
            steps = client.get(path(world.flow), params=day, headers=bearer()).json()["steps"]
            of_day = [row for row in rows if row["start"] == start and row["stepId"]]
            assert [{name: row[name] for name in HEADER[4:]} for row in of_day] == [
                {name: str(step[name]) for name in HEADER[4:]} for step in steps
            ]


def _next(start: str, rows: list[dict[str, str]]) -> str:
    starts = [row["start"] for row in rows] + ["2026-03-31T00:00:00+00:00"]
    return starts[starts.index(start) + 1]


def test_it_is_a_download_with_a_harmless_name(store_url: str, world: World) -> None:
    hostile = 'x"; filename="evil.exe"\r\nX-Evil: 1\r\n\r\n<script>'
    own = Flow(world.organisation, world.empty.flow_id, hostile, "tour", [])
    world.catalog.import_flow(own)
    with reading(store_url) as client:
        found = client.get(path(own, export=True), params=RANGE, headers=bearer())
    assert found.status_code == 200
    assert found.headers["content-type"] == "text/csv; charset=utf-8"
    name = "x-filename-evil-exe-x-evil-1-script-2026-03-27-2026-03-30.csv"
    assert found.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert "x-evil" not in found.headers
    assert len(parsed(found.content)) == 1 + 4


class HeldQueries(Queries):
    """The store's own queries, held after the first few intervals until the test lets them go on."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine)
        self.asked = 0
        self.go_on = threading.Event()

    def cells(self, table: sa.Table, **rest: Any) -> list[sa.RowMapping]:  # type: ignore[override]
        if table is t.counts:
            self.asked += 1
        if self.asked > 1:
            assert self.go_on.wait(ENOUGH_SECONDS)
        return super().cells(table, **rest)


@pytest.fixture
def held(store_url: str, world: World) -> Iterator[tuple[HeldQueries, httpx.Client]]:
    engine = open_engine(store_url)
    verifier = from_settings(Settings(jwt_secret=SECRET, jwt_issuer=ISSUER))
    queries = HeldQueries(engine)
    with ThreadPoolExecutor(2) as threads:
        reader = Reader(Catalog(engine), queries, verifier, "none", threads)
        routes = reader.routes(Gate(Limiter(MemoryLimits()), Clients(SECRET)), Cors([]))
        with serving(Starlette(routes=routes)) as base, httpx.Client(base_url=base, timeout=30) as client:
            yield queries, client
            queries.go_on.set()
    engine.dispose()


LONG = {"from": "2026-01-01", "to": "2026-12-31"}


def test_the_first_rows_come_before_the_last_are_read(held: tuple[HeldQueries, httpx.Client], world: World) -> None:
    queries, client = held
    with client.stream("GET", path(world.flow, export=True), params=LONG, headers=bearer()) as answer:
        chunks = answer.iter_bytes()
        first = next(chunks)
        assert queries.asked <= 2 < 364 / CHUNK
        queries.go_on.set()
        rows = parsed(first + b"".join(chunks))
    assert len(rows) == 1 + 364 * 4


def test_an_export_whose_store_goes_away_is_cut_off_and_does_not_look_whole(
    held: tuple[HeldQueries, httpx.Client], world: World, caplog: pytest.LogCaptureFixture
) -> None:
    queries, client = held
    with client.stream("GET", path(world.flow, export=True), params=LONG, headers=bearer()) as answer:
        assert answer.status_code == 200
        chunks = answer.iter_bytes()
        next(chunks)
        t.counts.drop(world.engine)
        queries.go_on.set()
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            b"".join(chunks)
    assert queries.asked == 2


def test_a_client_that_goes_away_ends_the_reading(held: tuple[HeldQueries, httpx.Client], world: World) -> None:
    queries, client = held
    ended = answered()
    with client.stream("GET", path(world.flow, export=True), params=LONG, headers=bearer()) as answer:
        next(answer.iter_bytes())
    deadline = time.monotonic() + ENOUGH_SECONDS
    while answered() == ended:
        assert time.monotonic() < deadline, "the export goes on"
        time.sleep(0.01)
    queries.go_on.set()
    assert queries.asked <= 2


def answered() -> float:
    """Exports that are over, in whatever way."""
    labels = {"route": "/api/v1/flows/{flow_id}/analytics/export.csv", "method": "GET", "status": "200"}
    return REGISTRY.get_sample_value("zenstep_http_requests_total", labels) or 0


def test_head_reads_no_rows(held: tuple[HeldQueries, httpx.Client], world: World) -> None:
    queries, client = held
    assert client.head(path(world.flow, export=True), params=LONG, headers=bearer()).status_code == 200
    assert queries.asked == 0
