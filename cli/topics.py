"""`zenstep topics`: the log's topics."""

import click

from cli.output import command, json_option, show
from cli.waiting import retry, wait_option
from service.settings import Settings


@click.group()
def topics() -> None:
    """The log's topics."""


@topics.command()
@wait_option
@json_option
@command
def create(wait: float, as_json: bool) -> None:
    """Create the topics that are missing."""
    from backends.log import LogUnavailable
    from service.settings import load

    settings = load()
    made: dict[str, bool] = {}
    retry(lambda: _create(settings, made), wait, LogUnavailable)
    lines = (f"{topic}: {'created' if new else 'was there'}" for topic, new in made.items())
    show({"topics": [{"topic": topic, "created": new} for topic, new in made.items()]}, as_json, "\n".join(lines))


def _create(settings: Settings, made: dict[str, bool]) -> None:
    """Notes in `made` which were created; what an earlier try did stays noted."""
    from backends.log import open_admin
    from schemas.topics import Topics

    admin = open_admin(settings.log_url)
    try:
        for topic in Topics(settings.topic_prefix).all():
            if topic not in made:
                made[topic] = admin.create_topic(topic, settings.partitions, settings.replication)
    finally:
        admin.close()


@topics.command()
@click.option("--partitions", required=True, type=click.IntRange(min=1), help="How many each topic is to have.")
@json_option
@command
def grow(partitions: int, as_json: bool) -> None:
    """Give the topics more partitions, while everything runs.

    Edges and workers notice within a minute. None can be taken away again.
    """
    from contextlib import closing

    from backends.log import open_admin
    from backends.store.offsets import Offsets
    from cli.output import store
    from schemas.topics import Topics
    from service.settings import load

    settings = load()
    stored = Offsets(store())
    grown: dict[str, bool] = {}
    with closing(open_admin(settings.log_url)) as admin:
        has = admin.topics()
        for topic in Topics(settings.topic_prefix).all():
            # Before an event can be in a new partition, readers must know that there is one: they promise by it.
            stored.enter(topic, range(has.get(topic, partitions), partitions))
            grown[topic] = admin.add_partitions(topic, partitions)
    lines = (f"{topic}: {partitions} partitions{'' if new else ' already'}" for topic, new in grown.items())
    show({"topics": [{"topic": topic, "grown": new} for topic, new in grown.items()]}, as_json, "\n".join(lines))
