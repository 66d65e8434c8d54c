"""`zenstep key`: snippet keys."""

import click

from backends.store.catalog import CatalogError
from cli.output import catalog, command, json_option, show, when
from cli.parameters import UUID


@click.group()
def key() -> None:
    """Snippet keys."""


@key.command()
@click.option("--org", "organisation", type=UUID, required=True, help="The organisation's id.")
@click.option("--environment", type=click.Choice(["production", "staging"]), help="What the key is used in.")
@json_option
@command
def create(organisation: str, environment: str | None, as_json: bool) -> None:
    """Create a key and print it. It cannot be printed again: only its digest is kept."""
    made = catalog().create_key(organisation, environment)
    show({"key": made, "organisation_id": organisation, "environment": environment}, as_json, made)


@key.command()
@click.argument("key", metavar="KEY")
@click.option("--org", "organisation", type=UUID, help="The organisation's id, where KEY is given by its end.")
@json_option
@command
def revoke(key: str, organisation: str | None, as_json: bool) -> None:
    """Revoke a KEY.

    It is given whole, or by its last four characters (see `zenstep key list`) with --org. Every edge stops taking it
    within 30 seconds.
    """
    if catalog().revoke_key(key, organisation) == 0:
        raise CatalogError("there is no such key, or it is revoked already")
    show({"revoked": True}, as_json, "Revoked.")


@key.command("list")
@click.option("--org", "organisation", type=UUID, required=True, help="The organisation's id.")
@json_option
@command
def list_(organisation: str, as_json: bool) -> None:
    """List an organisation's keys by their last four characters."""
    rows = catalog().keys(organisation)
    text = "\n".join(
        f"...{row['hint']}  {row['environment'] or '-':10}  created {when(row['created_at'])}  "
        f"revoked {when(row['revoked_at'])}"
        for row in rows
    )
    show({"keys": rows}, as_json, text or "The organisation has no keys yet.")
