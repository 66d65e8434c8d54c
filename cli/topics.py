"""`zenstep topics`: the log's topics."""

import click

from cli.output import command, json_option, show


@click.group()
def topics() -> None:
    """The log's topics."""


@topics.command()
@json_option
@command
def create(as_json: bool) -> None:
    """Create the topics that are missing."""
    from backends.log import open_admin
    from schemas.topics import Topics
    from service.settings import load

    settings = load()
    admin = open_admin(settings.log_url)
    try:
        made = {
            topic: admin.create_topic(topic, settings.partitions, settings.replication)
            for topic in Topics(settings.topic_prefix).all()
        }
    finally:
        admin.close()
    lines = (f"{topic}: {'created' if new else 'was there'}" for topic, new in made.items())
    show({"topics": [{"topic": topic, "created": new} for topic, new in made.items()]}, as_json, "\n".join(lines))
