"""`zenstep offsets`: where the workers stand in the log, and an operator's decisions where that does not fit."""

from contextlib import closing
from typing import Any

import click

from backends.log import Reader, TopicPartition, open_admin, open_reader
from backends.store.offsets import AnotherTopic, Offsets, Standing
from cli.output import command, json_option, show, store
from schemas.topics import Topics
from service.settings import Settings, load
from workers import stops

topic_option = click.option("--topic", required=True, help="The topic.")
yes_option = click.option("--yes", is_flag=True, help="Do it; without, only say what would be done.")


@click.group()
def offsets() -> None:
    """Where the workers stand in the log."""


@offsets.command("list")
@click.option("--topic", help="Of this topic alone.")
@json_option
@command
def list_(topic: str | None, as_json: bool) -> None:
    """Show each partition's next offset, what the log has, and what is wrong.

    Exit code 1 where a worker would stop.
    """
    settings = load()
    topics = [topic] if topic is not None else Topics(settings.topic_prefix).all()
    rows = _rows(settings, topics, {standing[:2]: standing for standing in Offsets(store()).of(topics)})
    lines = [f"{'partition':32} {'next':>12} {'beginning':>12} {'end':>12} {'lag':>12}"]
    for row in rows:
        numbers = ("next_offset", "beginning", "end", "lag")
        cells = " ".join(f"{'-' if row[name] is None else row[name]:>12}" for name in numbers)
        lines += [f"{row['topic']}[{row['partition']}]".ljust(33) + cells]
    problems = list(dict.fromkeys(row["problem"] for row in rows if row["problem"]))
    show({"offsets": rows}, as_json, "\n".join(lines + problems))
    if problems:
        raise click.exceptions.Exit(1)


@offsets.command()
@topic_option
@click.option("--partition", required=True, type=click.IntRange(min=0), help="Its partition.")
@click.option("--to", required=True, help="`earliest` or `latest` of what the log has, or an offset.")
@yes_option
@command
def move(topic: str, partition: int, to: str, yes: bool) -> None:
    """Have the workers go on from another offset.

    Safe while they run: a batch under way is then not written. What is read again counts once all the same.
    """
    settings = load()
    stored = Offsets(store())
    standing = {s.partition: s for s in stored.of([topic])}.get(partition)
    if standing is None:
        raise ValueError(f"no worker has read {topic}[{partition}] yet, so it begins at the beginning")
    tp = TopicPartition(topic, partition)
    with closing(open_reader(settings.log_url)) as reader:
        first, end = _bounds(reader, tp)
    problem = _another_topic(settings, standing)
    if problem is not None:
        raise ValueError(problem)
    target = {"earliest": first, "latest": end}.get(to)
    if target is None:
        target = _offset(to)
    if not first <= target <= end:
        raise ValueError(f"{topic}[{partition}] has offsets {first} to {end}")
    meaning = _meaning(standing.next_offset, target, first, end)
    click.echo(f"{topic}[{partition}]: from {standing.next_offset} to {target}, {meaning}")
    _only_with(yes)
    if not stored.move(topic, partition, standing.next_offset, target):
        raise ValueError(f"a worker has gone on in {topic}[{partition}] meanwhile; nothing is changed")


@offsets.command()
@topic_option
@yes_option
@command
def adopt(topic: str, yes: bool) -> None:
    """Read a topic that was made anew from its beginning.

    What was accounted for under the removed one is kept under its name with an @ and the beginning of its identity.
    """
    settings = load()
    stored = Offsets(store())
    with closing(open_admin(settings.log_url)) as admin, closing(open_reader(settings.log_url)) as reader:
        partitions = [TopicPartition(topic, n) for n in range(reader.partitions(topic))]
        identity = admin.identities().get(topic)
        beginnings = {tp.partition: offset for tp, offset in reader.beginning_offsets(partitions).items()}
    standings = stored.of([topic])
    if identity is None or all(s.identity in (None, identity) for s in standings):
        raise ValueError(f"{topic} is the topic that its offsets are of; there is nothing to adopt")
    click.echo(
        f"{topic}: its {len(standings)} partitions stand at {sum(s.next_offset for s in standings)} records of the"
    )
    click.echo(f"removed topic; {len(partitions)} partitions of the new one are read from their beginning")
    _only_with(yes)
    name = stored.adopt(topic, beginnings, identity)
    click.echo(f"what was accounted for of the removed topic is now of {name}")


def _rows(settings: Settings, topics: list[str], stored: dict[tuple[str, int], Standing]) -> list[dict[str, Any]]:
    rows = []
    with closing(open_admin(settings.log_url)) as admin, closing(open_reader(settings.log_url)) as reader:
        identities = admin.identities()
        for topic in topics:
            partitions = [TopicPartition(topic, n) for n in range(reader.partitions(topic))]
            beginnings, ends = reader.beginning_offsets(partitions), reader.end_offsets(partitions)
            for tp in partitions:
                standing = stored.get(tp)
                following = None if standing is None else standing.next_offset
                problem = None if standing is None else _difference(standing, identities.get(topic))
                if problem is None and following is not None:
                    astray = stops.astray({tp: following}, beginnings, ends)
                    problem = str(astray) if astray is not None else None
                lag = max(0, ends[tp] - (beginnings[tp] if following is None else following))
                row = {"topic": topic, "partition": tp.partition, "next_offset": following}
                rows.append(row | {"beginning": beginnings[tp], "end": ends[tp], "lag": lag, "problem": problem})
    return rows


def _bounds(reader: Reader, tp: TopicPartition) -> tuple[int, int]:
    if tp.partition >= reader.partitions(tp.topic):
        raise ValueError(f"{tp.topic} has partitions 0 to {reader.partitions(tp.topic) - 1}")
    return reader.beginning_offsets([tp])[tp], reader.end_offsets([tp])[tp]


def _another_topic(settings: Settings, standing: Standing) -> str | None:
    with closing(open_admin(settings.log_url)) as admin:
        return _difference(standing, admin.identities().get(standing.topic))


def _difference(standing: Standing, found: str | None) -> str | None:
    if standing.identity is None or found is None or standing.identity == found:
        return None
    return str(stops.recreated(AnotherTopic(standing.topic, standing.identity, found)))


def _offset(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("--to is `earliest`, `latest` or an offset")
    return int(text)


def _meaning(stands: int, target: int, first: int, end: int) -> str:
    """In records. What is gone from the log is skipped whatever is decided."""
    if stands > end:
        return "which is no record's: the log ends before it"
    if target < stands:
        return f"{stands - target} records are read again, and what was counted is not counted twice"
    gone = max(0, min(first, target) - stands)
    return f"{target - stands} records are skipped{f', {gone} of them gone from the log' if gone else ''}"


def _only_with(yes: bool) -> None:
    if not yes:
        raise ValueError("nothing is changed without --yes")
