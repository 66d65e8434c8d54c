"""`zenstep rebuild`: the store's numbers anew from the topics, put in place in one transaction."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cli.output import command, configured, json_option, show

if TYPE_CHECKING:
    from backends.store.compare import Difference
    from workers.rebuild import Progress

LINE_SECONDS = 10.0


@click.command()
@click.option("--compare", "--dry-run", "compare", is_flag=True, help="Rebuild and say what differs, without the swap.")
@click.option("--restart", is_flag=True, help="Throw away a rebuild that was begun, and begin anew.")
@click.option("--accept-loss", is_flag=True, help="Go on where the log no longer has all that was counted.")
@json_option
@command
def rebuild(compare: bool, restart: bool, accept_loss: bool, as_json: bool) -> None:
    """Count the topics anew, beside the live tables, and swap.

    Edges, workers and readers go on meanwhile. Ctrl-C stops it; run again it goes on where it was. With --compare the
    exit code is 1 where the numbers differ.
    """
    from backends.log import open_admin, open_reader
    from backends.store.rebuild import RebuildError, open_beside
    from workers.limit import Limit
    from workers.rebuild import Interrupted, Rebuild

    settings = configured()
    context = click.get_current_context()
    try:
        beside = open_beside(settings.store_url)
        context.call_on_close(beside.close)
        reader = open_reader(settings.log_url)
        context.call_on_close(reader.close)
        admin = open_admin(settings.log_url)
        context.call_on_close(admin.close)
        with _until_signal() as signals, Display() as display:
            run = Rebuild(
                beside,
                reader,
                settings.batch_records,
                admin.identities,
                Limit(settings.poison_in_a_row, settings.poison_share),
                accept_loss,
                display.tell,
                display.say,
                lambda: bool(signals),
            )
            found = run.compare(restart) if compare else None
            done = None if compare else run.swap(restart)
    except RebuildError as error:
        raise click.ClickException(str(error)) from None
    except Interrupted:
        click.echo("Stopped. Run it again to go on.", err=True)
        raise click.exceptions.Exit(130) from None
    if done is not None:
        text = f"Rebuilt from {done.records:,} records with {done.events:,} events, and in place."
        show({"records": done.records, "events": done.events, "swapped": True}, as_json, text)
    if found is not None:
        equal = all(table.equal for table in found)
        show({"equal": equal, "tables": [_document(table) for table in found]}, as_json, _report(found, equal))
        if not equal:
            raise click.exceptions.Exit(1)


def _document(table: "Difference") -> dict[str, object]:
    return {
        "table": table.table,
        "equal": table.equal,
        "rows": {"live": table.rows[0], "rebuilt": table.rows[1]},
        "only": {"live": table.only[0], "rebuilt": table.only[1]},
        "pruned": table.pruned,
        "sums": {name: {"live": live, "rebuilt": rebuilt} for name, (live, rebuilt) in table.sums.items()},
    }


def _report(found: "list[Difference]", equal: bool) -> str:
    lines = [f"{'table':20} {'rows live':>14} {'rebuilt':>14} {'only live':>12} {'only rebuilt':>12}"]
    for table in found:
        numbers = f"{table.rows[0]:14,} {table.rows[1]:14,} {table.only[0]:12,} {table.only[1]:12,}"
        note = "" if table.equal else "  DIFFERS"
        pruned = f"  ({table.pruned:,} removed by retention)" if table.pruned else ""
        lines.append(f"{table.table:20} {numbers}{note}{pruned}")
        lines += [
            f"  {name:18} {live:14,} {rebuilt:14,}{'' if live == rebuilt else '  DIFFERS'}"
            for name, (live, rebuilt) in table.sums.items()
        ]
    return "\n".join([*lines, "equal" if equal else "THE NUMBERS DIFFER"])


class Display:
    """A bar on a terminal, else a line now and then; on standard error, so that the result stands alone."""

    def __init__(self) -> None:
        columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._terminal = sys.stderr.isatty()
        self._bar = Bar(*columns, console=Console(stderr=True), disable=not self._terminal)
        self._task = self._bar.add_task("")
        self._began: tuple[float, int] | None = None
        self._line_at = 0.0

    def tell(self, progress: "Progress") -> None:
        now = time.monotonic()
        if self._began is None:
            self._began = (now, progress.records)
        seconds, records = now - self._began[0], progress.records - self._began[1]
        rate = f", {records / seconds:,.0f} records/s" if seconds > 0 else ""
        numbers = f"{progress.records:,} of {progress.of:,} records, {progress.events:,} events{rate}"
        text = f"{numbers}, {progress.of - progress.records:,} records behind the workers"
        self._bar.update(self._task, completed=progress.records, total=progress.of, description=text)
        if not self._terminal and now - self._line_at >= LINE_SECONDS:
            self._line_at = now
            click.echo(text, err=True)

    def say(self, sentence: str) -> None:
        self._bar.console.print(sentence) if self._terminal else click.echo(sentence, err=True)

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


@contextmanager
def _until_signal() -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM is kept, a second ends the command at once."""
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
