"""`zenstep ledger`: what became of every event that was consumed."""

import click

from cli.output import UUID, command, json_option, show


@click.command()
@click.option("--org", "organisation", type=UUID, help="Of this organisation alone.")
@json_option
@command
def ledger(organisation: str | None, as_json: bool) -> None:
    """Show events by outcome: consumed = counted + duplicate + rejected."""
    from backends.store.counting import Counting
    from backends.store.engine import open_engine
    from service.settings import load

    sums = Counting(open_engine(load().store_url)).ledger(organisation)
    text = "\n".join(f"{outcome:28} {events:>12,}" for outcome, events in sums.items())
    show({"events": sums}, as_json, text or "Nothing has been consumed yet.")
