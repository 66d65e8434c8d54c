"""`zenstep ledger`: what became of every event that was consumed."""

import click

from cli.output import command, json_option, show, store
from cli.parameters import UUID


@click.command()
@click.option("--org", "organisation", type=UUID, help="Of this organisation alone.")
@json_option
@command
def ledger(organisation: str | None, as_json: bool) -> None:
    """Show what became of every event.

    Consumed = counted + duplicate + rejected; exit code 1 where that does not hold.
    """
    from backends.store.catalog import Catalog
    from backends.store.counting import Counting

    engine = store()
    sums = Counting(engine).ledger(organisation)
    if organisation is not None and not sums:
        Catalog(engine).require_organisation(organisation)
    consumed = sums.get("consumed", 0)
    adds_up = consumed == sum(sums.values()) - consumed
    lines = [f"{outcome:28} {events:>12,}" for outcome, events in sums.items()]
    text = "\n".join([*lines, "adds up" if adds_up else "DOES NOT ADD UP"])
    show({"events": sums, "adds_up": adds_up}, as_json, text if sums else "Nothing has been consumed yet.")
    if not adds_up:
        raise click.exceptions.Exit(1)
