"""Figures reach the pages as they were measured, and ratios are held to their bounds."""

import json
import re
from pathlib import Path

import pytest

from bench import quick, report, results, scale


def file(folder: Path, name: str, *tables: results.Table) -> None:
    results.write(folder / f"{name}.json", f"The {name}", f"python -m bench.{name}", tables, raw=[1, 2])


def test_committed_pages_are_what_is_rendered_from_the_committed_results() -> None:
    for path, text in report.rendered().items():
        assert path.read_text() == text, f"{path.name}: run python -m bench.report"


def test_a_table_has_its_numbers_to_the_right_and_its_note_below() -> None:
    made = results.table("Cost", ["server", "us", "share"], [["a|b", 12, "+3 %"], ["c", "1,250.5", ""]], "A note.")
    assert report.markdown(made) == (
        "| server | us | share |\n|---|--:|--:|\n| a\\|b | 12 | +3 % |\n| c | 1,250.5 |  |\n\nA note.\n"
    )


def test_files_come_in_their_order_with_command_and_machine_and_those_without_tables_are_left_out(
    tmp_path: Path,
) -> None:
    for name in ("zebra", "growth", "worker", "edge"):
        file(tmp_path, name, results.table(f"Of {name}", ["n"], [[1]]))
    (tmp_path / "chaos.json").write_text(json.dumps({"totals": {}}))
    page = report.page(report.found(tmp_path))
    assert re.findall("^## (.*)$", page, re.MULTILINE) == ["The edge", "The worker", "The growth", "The zebra"]
    assert "by `python -m bench.edge`: " in page
    assert "cores" in page


def test_the_readme_shows_the_headlines_alone(tmp_path: Path) -> None:
    headline = results.table("Short", ["n"], [[1]], headline=True)
    file(tmp_path, "edge", headline, results.table("Long", ["n"], [[2]]))
    shown = report.headlines(report.found(tmp_path))
    assert "Short" in shown
    assert "Long" not in shown


def test_figures_are_put_between_the_markers_and_again_without_growing() -> None:
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.put(text, "| new |\n")
    assert once == f"before\n{report.BEGIN}\n\n| new |\n\n{report.END}\nafter\n"
    assert report.put(once, "| new |\n") == once


def test_cores_at_a_rate_follow_from_what_was_measured() -> None:
    costs = scale.Costs(request_1=100, request_50=590, worker=30, postgres=20)
    assert costs.edge(1) == 100
    assert costs.edge(50) == pytest.approx(590 / 50)
    assert costs.edge(10) == pytest.approx(190 / 10)
    (ten_thousand, *_, million) = scale.plan(costs)["rows"]
    assert ten_thousand == ["10,000", "2", "1", "1", "1", "1"]
    assert million == ["1,000,000", "200", "38", "24", "60", "40"]


def test_there_is_no_plan_before_the_edge_and_the_worker_are_measured(tmp_path: Path) -> None:
    file(tmp_path, "edge")
    assert scale.costs(tmp_path) is None


@pytest.mark.parametrize("text", ["none", report.BEGIN, f"{report.BEGIN}{report.END}{report.BEGIN}"])
def test_a_page_without_one_pair_of_markers_is_not_written(text: str) -> None:
    with pytest.raises(ValueError, match="one pair"):
        report.put(text, "")


BOUNDS: dict[str, quick.Bound] = {
    "edge_cpu": {"what": "cost", "most": 0.3},
    "worker_rate": {"what": "speed", "least": 1.6},
}


@pytest.mark.parametrize(
    ("found", "worse"),
    [
        ({"edge_cpu": 0.3, "worker_rate": 1.6}, []),
        ({"edge_cpu": 0.31, "worker_rate": 1.59}, ["edge_cpu", "worker_rate"]),
        ({"edge_cpu": 0.2}, ["worker_rate"]),  # one that was not measured is not held
        ({"edge_cpu": 0.2, "worker_rate": 2.0, "edge_new": 0.1}, ["edge_new"]),  # one without a bound is a mistake
        ({"edge_cpu": float("nan"), "worker_rate": 2.0}, ["edge_cpu"]),
    ],
)
def test_a_ratio_that_is_worse_than_its_bound_is_named(found: dict[str, float], worse: list[str]) -> None:
    assert [one.name for one in quick.judge(found, BOUNDS) if not one.held] == worse


@pytest.mark.parametrize(
    ("measured", "held", "times"),
    [
        ([{"edge_cpu": 0.2}], True, 1),
        ([{"edge_cpu": 0.4}, {"edge_cpu": 0.2}], True, 2),  # a bad minute of the machine's
        ([{"edge_cpu": 0.4}, {"edge_cpu": 0.4}], False, 2),
    ],
)
def test_a_part_that_is_worse_is_measured_once_more(
    measured: list[dict[str, float]], held: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(measured)
    monkeypatch.setattr("bench.edge_quick.ratios", lambda: next(left))
    assert [(one.name, one.held) for one in quick.judge_part("edge", BOUNDS)] == [("edge_cpu", held)]
    assert len(measured) - len(list(left)) == times


def test_every_committed_bound_belongs_to_a_part_and_says_what_it_is() -> None:
    bounds = json.loads(quick.BOUNDS.read_text())
    for name, bound in bounds.items():
        assert name.startswith(tuple(quick.PARTS))
        assert bound["what"]
        assert bound.keys() & {"most", "least"}
