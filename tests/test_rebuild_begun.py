"""A rebuild that was begun: stopped, killed at any moment, gone on with, thrown away, and alone."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backends.log import open_reader
from backends.store.rebuild import RebuildError, open_beside
from tests.processes import PROGRAM, environment
from tests.rebuilding import Traffic
from tests.working import until
from workers.rebuild import Interrupted, Rebuild


@pytest.fixture
def traffic(store_url: str, tmp_path: Path) -> Iterator[Traffic]:
    """Counted by workers."""
    made = Traffic(store_url, f"sqlite:///{tmp_path}/log.db")
    made.send()
    made.count()
    yield made
    made.close()


class Killed(BaseException):
    """What a test throws in place of a kill: nothing catches it."""


class KillAt:
    """Throws at the nth statement or commit of any engine."""

    def __init__(self, n: int) -> None:
        self._left = n

    def __enter__(self) -> None:
        sa.event.listen(sa.Engine, "before_cursor_execute", self._count)
        sa.event.listen(sa.Engine, "commit", self._count)

    def __exit__(self, *_: object) -> None:
        sa.event.remove(sa.Engine, "before_cursor_execute", self._count)
        sa.event.remove(sa.Engine, "commit", self._count)

    def _count(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed


def test_killed_at_any_statement_it_leaves_before_or_after_and_goes_on(traffic: Traffic) -> None:
    before = traffic.numbers()
    traffic.execute("UPDATE counts SET views = views + 1")
    damaged = traffic.numbers()
    kills, said, swapped = 0, list[str](), False
    every = 11 if traffic.store_url.startswith("sqlite") else 23  # SQLite takes fewer statements
    while not swapped:
        try:
            with KillAt(1 + kills * every):
                traffic.rebuild(20, say=said.append)
            swapped = True
        except Killed:
            kills += 1
            found = traffic.numbers()
            assert found in (damaged, before)
            if found == before:
                swapped = True
    assert kills > 5
    assert "Going on with the rebuild that was begun." in said
    assert traffic.numbers() == before
    traffic.rebuild()
    assert traffic.numbers() == before, "what was left behind is cleared away"


def test_stopped_between_any_two_batches_it_goes_on_where_it_was(traffic: Traffic) -> None:
    before = traffic.numbers()
    reached: list[int] = []
    for stop_at in range(1, 100):
        asked = iter(range(stop_at))
        try:
            traffic.rebuild(10, stopping=lambda asked=asked: next(asked, None) is None)
            break
        except Interrupted:
            with closing(open_beside(traffic.store_url)) as beside:
                reached.append(sum(at.offset for at in beside.positions().values()))
            assert traffic.numbers() == before
    assert reached == sorted(reached)
    # On a slow machine a round without work asks once more: how many tries it takes is not told, that they add up is.
    assert reached[1] > 2 * reached[0] > 0
    assert reached[-1] <= 60
    assert traffic.numbers() == before


LONG = 240


def settings(traffic: Traffic, **more: Any) -> dict[str, str]:
    return environment({"store_url": traffic.store_url, "log_url": traffic.log_url, "batch_records": 1, **more})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_real_process_is_ended_and_run_again(traffic: Traffic, tmp_path: Path, number: signal.Signals) -> None:
    traffic.send(LONG)  # so many that it is still at it when it is ended
    traffic.count()
    before = traffic.numbers()
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen([*PROGRAM, "rebuild"], env=settings(traffic), stdout=out, stderr=out)

    def some() -> bool:
        assert process.poll() is None, (tmp_path / "out").read_text()
        try:
            with closing(open_beside(traffic.store_url)) as beside:
                return beside.conditions() is not None and sum(at.offset for at in beside.positions().values()) > 3
        except sa.exc.SQLAlchemyError:
            return False

    until(some)
    os.kill(process.pid, number)
    code = process.wait(60)
    assert code == (-9 if number == signal.SIGKILL else 130)
    assert traffic.numbers() == before
    traffic.execute("UPDATE counts SET views = views + 1")
    done = subprocess.run([*PROGRAM, "rebuild"], env=settings(traffic), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Going on with the rebuild that was begun." in done.stderr
    assert f"{60 + LONG} records with {traffic.events} events" in done.stdout
    assert traffic.numbers() == before


def begin(traffic: Traffic) -> None:
    """Leaves a rebuild half done."""
    asked = iter(range(3))
    with pytest.raises(Interrupted):
        traffic.rebuild(10, stopping=lambda: next(asked, None) is None)


def test_it_begins_anew_where_asked_and_where_the_store_was_migrated_or_somebody_forgotten_since(
    traffic: Traffic,
) -> None:
    before = traffic.numbers()
    for change, why in (
        (None, "as asked"),
        ("UPDATE alembic_version SET version_num = '9999'", "the store was migrated since"),
        (
            f"INSERT INTO forgotten VALUES ('{traffic.flows[0].organisation}', '{'0' * 64}', 1)",
            "somebody was forgotten",
        ),
    ):
        begin(traffic)
        if change is not None:
            traffic.execute(change)
        said: list[str] = []
        work = (lambda rebuild: rebuild.swap(restart=True)) if change is None else Rebuild.swap
        traffic.run(work, say=said.append)
        assert said[0].startswith(f"The rebuild that was begun is thrown away: {why}")
        assert traffic.numbers() == before


def test_somebody_forgotten_in_the_last_moment_is_not_brought_back(traffic: Traffic) -> None:
    """The swap looks again once nobody can be added; what was rebuilt before that is thrown away."""
    before = traffic.numbers()
    said: list[str] = []
    with closing(open_beside(traffic.store_url)) as beside, closing(open_reader(traffic.log_url)) as reader:
        refresh = beside.refresh

        def forget() -> None:
            refresh()
            if not said:
                traffic.execute(f"INSERT INTO forgotten VALUES ('{traffic.flows[0].organisation}', '{'0' * 64}', 1)")

        beside.refresh = forget  # type: ignore[method-assign]
        Rebuild(beside, reader, 25, say=said.append).swap()
    assert said == ["The rebuild that was begun is thrown away: somebody was forgotten since."]
    assert traffic.numbers() == before


def test_a_second_rebuild_at_the_same_time_is_refused(traffic: Traffic) -> None:
    refused = pytest.raises(RebuildError, match="another rebuild of this store runs")
    with closing(open_beside(traffic.store_url)) as first, first.alone(), refused:
        traffic.rebuild()
    traffic.rebuild()
