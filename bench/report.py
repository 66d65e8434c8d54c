"""Puts the tables of bench/results/ into docs/performance.md, docs/scale.md and README.md: `python -m bench.report`.

Nobody types a figure. A test holds that what is committed is what is rendered.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from bench import scale
from bench.results import FOLDER, Results, Table, read

ROOT = Path(__file__).parents[1]
PAGE, SCALE, README = ROOT / "docs" / "performance.md", ROOT / "docs" / "scale.md", ROOT / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
ORDER = ["edge", "memory", "worker", "freshness", "embedded", "growth"]
_NUMBER = re.compile(r"[-+]?[\d,.]+( %)?|")


def found(folder: Path = FOLDER) -> list[Results]:
    """Every results file that has tables: those of ORDER, then the others by name."""
    known = {name: number for number, name in enumerate(ORDER)}
    paths = sorted(folder.glob("*.json"), key=lambda path: (known.get(path.stem, len(ORDER)), path.stem))
    return [results for results in map(read, paths) if results is not None]


def page(results: Sequence[Results]) -> str:
    """A section for each file, with where its figures come from."""
    return "\n".join(_section(one) for one in results)


def headlines(results: Sequence[Results]) -> str:
    """The tables that README.md shows."""
    chosen = [(one, table) for one in results for table in one["tables"] if table.get("headline")]
    return "\n".join(f"**{table['title']}** ({one['date']})\n\n{markdown(table)}" for one, table in chosen)


def markdown(table: Table) -> str:
    """Columns of numbers stand to the right."""
    columns = range(len(table["columns"]))
    numeric = [all(_NUMBER.fullmatch(row[column]) for row in table["rows"]) for column in columns]
    lines = [
        _line(table["columns"]),
        "|" + "|".join("--:" if right else "---" for right in numeric) + "|",
        *map(_line, table["rows"]),
    ]
    note = f"\n{table['note']}\n" if table["note"] else ""
    return "\n".join(lines) + "\n" + note


def put(text: str, figures: str) -> str:
    """The text with these figures between its markers. Raises ValueError where it has not one pair of them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after:
        raise ValueError(f"there is not one pair of the markers {BEGIN} and {END}")
    return f"{before}{begin}\n\n{figures}\n{end}{after}"


def rendered() -> dict[Path, str]:
    """The files as they are to be."""
    results = found()
    costs = scale.costs()
    return {
        PAGE: put(PAGE.read_text(), page(results)),
        SCALE: put(SCALE.read_text(), markdown(scale.plan(costs)) if costs is not None else ""),
        README: put(README.read_text(), headlines(results)),
    }


def _section(results: Results) -> str:
    machine = results["machine"]
    memory = f"{int(str(machine['memory_mib'])) / 1024:.0f} GiB"
    made = (
        f"Measured on {results['date']} by `{results['command'].strip()}`: {machine['processor']}, "
        f"{machine['cores']} cores, {memory}, {machine['system']}, Python {machine['python']}."
    )
    tables = [f"### {table['title']}\n\n{markdown(table)}" for table in results["tables"] if table["rows"]]
    return "\n".join([f"## {results['title']}\n\n{made}\n", *tables])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 where a file is not what it is to be.")
def main(check: bool) -> None:
    """Render the figures."""
    changed = {path: text for path, text in rendered().items() if path.read_text() != text}
    for path, text in changed.items():
        click.echo(path.relative_to(ROOT))
        if not check:
            path.write_text(text)
    sys.exit(1 if check and changed else 0)


if __name__ == "__main__":
    main()
