"""`zenstep member`: who may read an organisation's analytics."""

import click

from cli.output import catalog, command, json_option, show, when
from cli.parameters import UUID

_org = click.option("--org", "organisation", type=UUID, required=True, help="The organisation's id.")
_user = click.option("--user", type=UUID, required=True, help="The user's id: the `sub` of their session token.")


@click.group()
def member() -> None:
    """Members: who may read an organisation's analytics."""


@member.command()
@_org
@_user
@json_option
@command
def add(organisation: str, user: str, as_json: bool) -> None:
    """Let a user read an organisation."""
    catalog().add_member(organisation, user)
    show({"organisation_id": organisation, "user_id": user}, as_json, "Added.")


@member.command()
@_org
@_user
@json_option
@command
def remove(organisation: str, user: str, as_json: bool) -> None:
    """Let a user read an organisation no more. It holds from their next request on."""
    catalog().remove_member(organisation, user)
    show({"organisation_id": organisation, "user_id": user}, as_json, "Removed.")


@member.command("list")
@_org
@json_option
@command
def list_(organisation: str, as_json: bool) -> None:
    """List an organisation's members."""
    rows = catalog().members(organisation)
    text = "\n".join(f"{row['user_id']}  since {when(row['created_at'])}" for row in rows)
    show({"members": rows}, as_json, text or "The organisation has no members yet.")
