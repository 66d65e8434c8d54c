"""`zenstep rejected replay`: puts what was set aside into its topic again."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import click

from backends.log import LogError, Producer, RecordTooLarge, open_producer
from backends.store.rejected import Rejected, RejectedRows, Wanted
from cli.long import STOPPED, LongRun, rate_option
from cli.output import command, json_option, show, store
from cli.putting import CHUNK_BYTES, Target
from cli.rejected_rows import filters
from ingest.grouping import grouped
from service.settings import load

PAGE = 100


@click.command()
@filters
@click.option("--limit", type=click.IntRange(1), help="So many at most.")
@rate_option
@click.option("--again", is_flag=True, help="Those too that were replayed before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@json_option
@command
def replay(
    reasons: tuple[str, ...],
    organisation: str | None,
    since: int | None,
    until: int | None,
    limit: int | None,
    rate: float | None,
    again: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put what was set aside into its topic again.

    Nothing is counted twice by it: ids stay as they are. What is set aside again is a new row with its new place.
    Interrupted, it goes on with the next run where it was.
    """
    rows, wanted = RejectedRows(store()), Wanted(reasons, organisation, since, until)
    plan: dict[str, int] = {}
    left_out: dict[str, int] = {}
    for found in rows.sums(wanted):
        open_rows = found.rows if again else found.rows - found.replayed
        if open_rows:
            (left_out if _why_left_out(found.reason, reasons) else plan)[found.reason] = open_rows
    total = min(sum(plan.values()), limit or sum(plan.values()))
    if dry_run:
        _summary(plan, left_out, {}, reasons, as_json, dry_run=True, stopped=False)
        return
    replaying = _Replaying(rows, wanted._replace(reasons=list(plan)), again)
    run = LongRun("Replaying", total, rate)
    try:
        with run:
            if plan:
                replaying.run(run, total)
    finally:
        replaying.close()
        _summary(
            replaying.replayed, left_out, replaying.too_large, reasons, as_json, dry_run=False, stopped=run.stopped
        )
    if run.stopped:
        raise click.exceptions.Exit(STOPPED)


class _Replaying:
    """One run. Rows are marked after the log's acknowledgement: killed between the two, it puts them in once more."""

    def __init__(self, rows: RejectedRows, wanted: Wanted, again: bool) -> None:
        self._rows = rows
        self._wanted = wanted
        self._again = again
        self._producer: Producer | None = None
        self._targets: dict[str, Target] = {}
        self.replayed: Counter[str] = Counter()
        self.too_large: Counter[str] = Counter()

    def run(self, run: LongRun, total: int) -> None:
        """Ends at rows that were not there at the start: those may be its own, set aside again. Raises LogError."""
        ends = self._rows.ends(self._wanted)
        after = None
        left = total
        while left > 0 and not run.stopped:
            page = self._rows.page(self._wanted, ends, after, min(left, run.most(PAGE)), self._again)
            if not page:
                return
            for part in grouped(page, lambda row: len(row.body), CHUNK_BYTES):
                self._put(part)
            after = page[-1].key
            left -= len(page)
            run.done(len(page))

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(5)

    def _put(self, rows: list[Rejected]) -> None:
        topics: dict[str, list[Rejected]] = {}
        for row in rows:
            topics.setdefault(row.place.topic, []).append(row)
        for topic, theirs in topics.items():
            target = self._target(topic)
            outcomes = target.put([target.route(row.organisation, row.body) for row in theirs])
            self._rows.mark_replayed(self._acknowledged(theirs, outcomes), time.time_ns() // 1_000_000)
            for error in outcomes:
                if error is not None and not isinstance(error, RecordTooLarge):
                    raise error

    def _acknowledged(self, rows: list[Rejected], outcomes: Sequence[LogError | None]) -> list[Rejected]:
        self.replayed.update(row.reason for row, error in zip(rows, outcomes, strict=True) if error is None)
        self.too_large.update(
            row.reason for row, error in zip(rows, outcomes, strict=True) if isinstance(error, RecordTooLarge)
        )
        return [row for row, error in zip(rows, outcomes, strict=True) if error is None]

    def _target(self, topic: str) -> Target:
        if self._producer is None:
            self._producer = open_producer(load().log_url)
        if topic not in self._targets:
            self._targets[topic] = Target(self._producer, topic)
        return self._targets[topic]


def _why_left_out(reason: str, named: Sequence[str]) -> str | None:
    if reason == "unreadable":
        return "no worker can read it"
    if reason.startswith("refused:"):
        return "the edge refused it, and only a part of it is kept"
    if reason == "too_old" and reason not in named:
        return (
            "judged by when the edge received it, so it would be set aside again; --reason too_old does it all the same"
        )
    return None


def _summary(
    done: Mapping[str, int],
    left_out: Mapping[str, int],
    too_large: Mapping[str, int],
    named: Sequence[str],
    as_json: bool,
    dry_run: bool,
    stopped: bool,
) -> None:
    why = {reason: _why_left_out(reason, named) for reason in left_out}
    lines = [f"{n:>12,}  {reason:28} {'would be replayed' if dry_run else 'replayed'}" for reason, n in done.items()]
    lines += [f"{n:>12,}  {reason:28} left: too large for its topic" for reason, n in too_large.items()]
    lines += [f"{n:>12,}  {reason:28} left out: {why[reason]}" for reason, n in left_out.items()]
    if "too_old" in done:
        lines.append("too_old is judged by when the edge received it: those are set aside again.")
    if stopped:
        lines.append("Stopped; run it again to go on.")
    result = {
        "dry_run": dry_run,
        "stopped": stopped,
        "would_replay" if dry_run else "replayed": dict(done),
        "too_large": dict(too_large),
        "left_out": [{"reason": reason, "rows": n, "why": why[reason]} for reason, n in left_out.items()],
    }
    show(result, as_json, "\n".join(lines) or "There is nothing to replay.")
