"""`zenstep edge`, `zenstep worker`, `zenstep reader`: the processes."""

import click

from cli.output import command, configured


@click.command()
@command
def edge() -> None:
    """Take events and heartbeats over HTTP and put them into the log."""
    from ingest.main import run

    run(configured())


@click.command()
@command
def worker() -> None:
    """Consume the log and count each event exactly once."""
    from workers.main import run

    run(configured())


@click.command()
@command
def reader() -> None:
    """Answer analytics over HTTP."""
    from readers.main import run

    run(configured())
