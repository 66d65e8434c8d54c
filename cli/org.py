"""`zenstep org`: organisations."""

import click

from cli.output import catalog, command, json_option, show, when
from cli.parameters import NAME, UUID


@click.group()
def org() -> None:
    """Organisations."""


@org.command()
@click.argument("name", type=NAME)
@click.option("--id", "organisation", type=UUID, help="Use this id instead of a new one.")
@json_option
@command
def create(name: str, organisation: str | None, as_json: bool) -> None:
    """Create an organisation called NAME."""
    identifier = catalog().create_organisation(name, organisation)
    show({"organisation_id": identifier, "name": name}, as_json, f"{identifier}  {name}")


@org.command("list")
@json_option
@command
def list_(as_json: bool) -> None:
    """List the organisations."""
    rows = catalog().organisations()
    text = "\n".join(f"{row['organisation_id']}  {when(row['created_at'])}  {row['name']}" for row in rows)
    show({"organisations": rows}, as_json, text or "There are no organisations yet.")
