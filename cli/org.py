"""`zenstep org`: organisations."""

import click

from cli.output import catalog, command, json_option, show, when
from cli.parameters import NAME, UUID
from schemas.limits import LIMITS, MAX_LIMIT
from schemas.privacy import TREATMENTS, Privacy, Treatment


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


@org.command()
@click.argument("organisation", type=UUID)
@click.option("--bucket", type=click.Choice(list(LIMITS)), help="The limit to change.")
@click.option("--per-minute", type=click.IntRange(1, MAX_LIMIT), help="Requests a minute.")
@click.option("--default", "reset", is_flag=True, help="Back to the default.")
@json_option
@command
def limits(organisation: str, bucket: str | None, per_minute: int | None, reset: bool, as_json: bool) -> None:
    """Show an organisation's rate limits, or change one. Every edge follows within 30 seconds."""
    if (bucket is not None) != (per_minute is not None or reset) or (per_minute is not None and reset):
        raise click.UsageError("--bucket goes with --per-minute or with --default")
    store = catalog()
    if bucket is not None:
        store.set_limit(organisation, bucket, per_minute)
    found = store.limits(organisation)
    text = "\n".join(f"{name:12} {n:>10,} a minute" for name, n in found.items())
    show({"organisation_id": organisation, "limits": found}, as_json, text)


@org.command()
@click.argument("organisation", type=UUID)
@click.option("--gpc", type=click.Choice(TREATMENTS), help="With `Sec-GPC: 1`.")
@click.option("--dnt", type=click.Choice(TREATMENTS), help="With `DNT: 1`.")
@json_option
@command
def privacy(organisation: str, gpc: Treatment | None, dnt: Treatment | None, as_json: bool) -> None:
    """Show or set what becomes of events whose browsers ask for privacy: kept without ids, or dropped."""
    store = catalog()
    chosen = store.privacy(organisation)
    if gpc is not None or dnt is not None:
        chosen = Privacy(gpc or chosen.gpc, dnt or chosen.dnt)
        store.set_privacy(organisation, chosen)
    show(chosen._asdict(), as_json, f"Sec-GPC: {chosen.gpc}\nDNT: {chosen.dnt}")
