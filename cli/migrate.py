"""`zenstep migrate`: the store's tables."""

import click

from cli.output import command, json_option, show
from cli.waiting import retry, wait_option


@click.command()
@wait_option
@json_option
@command
def migrate(wait: float, as_json: bool) -> None:
    """Create the store's tables, or bring them to this release's."""
    from backends.store import migrate
    from backends.store.engine import ENVIRONMENT_ERRORS, open_engine
    from service.settings import load

    engine = open_engine(load().store_url)
    retry(lambda: migrate.migrate(engine), wait, *ENVIRONMENT_ERRORS)
    engine.dispose()
    show({"migrated": True}, as_json, "The store's tables are those of this release.")
