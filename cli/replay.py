"""`zenstep replay`: puts lines of a topic or a file into a log again, or saves them."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
import msgspec

from backends.log import open_producer, open_reader
from cli.long import STOPPED, LongRun, rate_option
from cli.output import command, json_option, show
from cli.putting import Target
from cli.replay_ranges import Position, PositionType, StateFile, Stretch, read, stretches
from cli.replay_sinks import Nowhere, Sink, ToFile, ToLog, organisation_of
from schemas import records
from service.settings import Settings, load

POSITION = PositionType()
FILE_LINES = 1000


class Source(msgspec.Struct):
    """What is read: a topic's ranges, or a file."""

    topic: str | None
    file: str | None
    partition: int | None
    since: Position | None
    until: Position | None
    state: str | None

    def check(self) -> None:
        if (self.topic is None) == (self.file is None):
            raise click.UsageError("give --topic or --file")
        ranged = (self.partition, self.since, self.until, self.state)
        if self.file is not None and any(option is not None for option in ranged):
            raise click.UsageError("--partition, --from, --to and --state go with --topic")
        if self.partition is None and any(at is not None and at.is_offset for at in (self.since, self.until)):
            raise click.UsageError("an offset goes with --partition")


class Drain(msgspec.Struct):
    """Where it goes."""

    log: str | None
    topic: str | None
    file: str | None
    dry_run: bool

    def check(self, source: Source) -> None:
        if self.file is not None and (self.log is not None or self.topic is not None or source.state is not None):
            raise click.UsageError("--to-file goes without --to-log, --to-topic and --state")
        if source.file is not None and self.file is None and self.topic is None and not self.dry_run:
            raise click.UsageError("--file goes with --to-topic or --to-file")

    def open(self, source: Source, settings: Settings, stack: ExitStack) -> Sink:
        if self.dry_run:
            return Nowhere()
        if self.file is not None:
            if self.file == "-":
                return ToFile(sys.stdout.buffer)
            return stack.enter_context(closing(ToFile(Path(self.file).open("xb"))))
        producer = open_producer(self.log or settings.log_url)
        stack.callback(producer.close, 5)
        return ToLog(Target(producer, self.topic or source.topic or ""))


class Replay:
    """Counts what passes."""

    def __init__(self, sink: Sink, keep_unreadable: bool) -> None:
        self._sink = sink
        self._keep_unreadable = keep_unreadable
        self.lines = 0
        self.unreadable = 0
        self.too_large = 0

    def put(self, lines: Iterable[bytes]) -> int:
        """Returns how many there were. Raises LogError, and what it raised for is not counted."""
        sorted_out = [(organisation_of(line), line) for line in lines]
        unreadable = sum(whose is None for whose, _ in sorted_out)
        kept = [one for one in sorted_out if one[0] is not None or self._keep_unreadable]
        too_large = self._sink.put(kept)
        self.lines += len(kept) - too_large
        self.unreadable += unreadable
        self.too_large += too_large
        return len(sorted_out)


@click.command()
@click.option("--topic", help="Read this topic of the configured log.")
@click.option("--partition", type=click.IntRange(0), help="This partition alone.")
@click.option("--from", "since", type=POSITION, help="From this offset, or from what the log took at this time on.")
@click.option("--to", "until", type=POSITION, help="Up to this offset or time, which is not replayed.")
@click.option("--file", type=click.Path(dir_okay=False, allow_dash=True), help="Read this file, a line an envelope.")
@click.option("--to-log", metavar="URL", help="Put into this log instead of the configured one.")
@click.option("--to-topic", help="Put into this topic instead of one of the same name.")
@click.option("--to-file", type=click.Path(dir_okay=False, allow_dash=True), help="Save in this new file instead.")
@rate_option
@click.option(
    "--state", type=click.Path(dir_okay=False), help="Keeps what was reached, so that it can go on from there."
)
@click.option("--keep-unreadable", is_flag=True, help="Copy lines that cannot be read too, to partition 0.")
@click.option("--dry-run", is_flag=True, help="Read and count, and put nothing anywhere.")
@json_option
@command
def replay(
    topic: str | None,
    partition: int | None,
    since: Position | None,
    until: Position | None,
    file: str | None,
    to_log: str | None,
    to_topic: str | None,
    to_file: str | None,
    rate: float | None,
    state: str | None,
    keep_unreadable: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Put a range of a topic, or a file of lines, into a log again.

    The organisation of a line gives its partition. Ids stay as they are, so that workers recognise what they counted.
    Ranges end at what is there at the start.
    """
    source = Source(topic, file, partition, since, until, state)
    source.check()
    drain = Drain(to_log, to_topic, to_file, dry_run)
    drain.check(source)
    settings = load()
    ranges: list[Stretch] = []
    with ExitStack() as stack:
        replaying = Replay(drain.open(source, settings, stack), keep_unreadable)
        if topic is not None:
            reader = stack.enter_context(closing(open_reader(settings.log_url)))
            keeper = StateFile(None if dry_run else state, _asked(source, drain, settings))
            ranges = keeper.load() or stretches(reader, topic, partition, since, until)
            keeper.save(ranges)
            run = LongRun("Replaying", sum(stretch.end - stretch.reached for stretch in ranges), rate)
        else:
            run = LongRun("Replaying", None, rate)
        try:
            with run:
                if topic is not None:
                    for stretch, found, reached in read(reader, topic, ranges, run):
                        lines = replaying.put(line for record in found for _, line in records.lines(record.value))
                        stretch.reached = reached
                        keeper.save(ranges)
                        run.done(lines, len(found))
                else:
                    opened = stack.enter_context(click.open_file(file or "", "rb"))
                    for part in _parts(opened, run):
                        run.done(replaying.put(part))
        finally:
            _summary(replaying, topic, ranges, dry_run, run.stopped, as_json, to_stderr=to_file == "-")
    if run.stopped:
        raise click.exceptions.Exit(STOPPED)
    if replaying.too_large:
        raise click.exceptions.Exit(1)


def _parts(file: Iterable[bytes], run: LongRun) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    for line in file:
        if line.strip():
            part.append(line.rstrip(b"\r\n"))
        if len(part) >= run.most(FILE_LINES):
            yield part
            part = []
        if run.stopped:
            return
    if part:
        yield part


def _asked(source: Source, drain: Drain, settings: Settings) -> dict[str, str | int | None]:
    positions = {
        name: None if at is None else str(at.value) for name, at in (("from", source.since), ("to", source.until))
    }
    return {
        "log": settings.log_url,
        "topic": source.topic,
        "partition": source.partition,
        **positions,
        "to_log": drain.log or settings.log_url,
        "to_topic": drain.topic or source.topic,
    }


def _summary(
    replaying: Replay,
    topic: str | None,
    ranges: list[Stretch],
    dry_run: bool,
    stopped: bool,
    as_json: bool,
    to_stderr: bool,
) -> None:
    counts = {name: getattr(replaying, name) for name in ("lines", "unreadable", "too_large")}
    lines = [f"{counts['lines']:,} lines {'would be replayed' if dry_run else 'replayed'}"]
    if replaying.unreadable:
        lines.append(f"{replaying.unreadable:,} lines cannot be read")
    if replaying.too_large:
        lines.append(f"{replaying.too_large:,} lines left out: too large for the topic")
    lines += [f"{topic}[{s.partition}]: {s.start} to {s.reached} of {s.end}" for s in ranges]
    if stopped:
        lines.append("Stopped.")
    result: dict[str, Any] = {"dry_run": dry_run, "stopped": stopped, **counts}
    result["ranges"] = [msgspec.to_builtins(stretch) for stretch in ranges]
    show(result, as_json, "\n".join(lines), err=to_stderr)
