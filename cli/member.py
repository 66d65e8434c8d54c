"""`zenstep member`: who may read an organisation's analytics."""

import click

from cli.output import UUID, catalog, command, json_option, show


@click.group()
def member() -> None:
    """Members: who may read an organisation's analytics."""


@member.command()
@click.option("--org", "organisation", type=UUID, required=True, help="The organisation's id.")
@click.option("--user", type=UUID, required=True, help="The user's id: the `sub` of their session token.")
@json_option
@command
def add(organisation: str, user: str, as_json: bool) -> None:
    """Let a user read an organisation."""
    catalog().add_member(organisation, user)
    show({"organisation_id": organisation, "user_id": user}, as_json, "Added.")
