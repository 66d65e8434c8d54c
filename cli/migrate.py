"""`zenstep migrate`: the store's tables."""

import click

from cli.output import command, json_option, show


@click.command()
@json_option
@command
def migrate(as_json: bool) -> None:
    """Create the store's tables, or bring them to this release's."""
    from backends.store import migrate
    from backends.store.engine import open_engine
    from service.settings import load

    migrate.migrate(open_engine(load().store_url))
    show({"migrated": True}, as_json, "The store's tables are those of this release.")
