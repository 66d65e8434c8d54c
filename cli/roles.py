"""`zenstep edge`, `zenstep worker`, `zenstep reader`: the processes."""

import click

from cli.output import command, configured
from service import garbage


@click.command()
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many serve the one port, each with its admin port and, in the spool's folder, a spool of its own.",
)
@command
def edge(processes: int) -> None:
    """Take events and heartbeats over HTTP and put them into the log.

    With --processes 3 the admin ports are ZENSTEP_EDGE_ADMIN_PORT and the two after it, and the spools are the folders
    1, 2 and 3 in ZENSTEP_SPOOL_PATH. One that ends is replaced.
    """
    garbage.put_off()
    from ingest.main import run

    run(configured(), processes)


@click.command()
@command
def worker() -> None:
    """Consume the log and count each event exactly once."""
    garbage.put_off()
    from workers.main import run

    run(configured())


@click.command()
@command
def reader() -> None:
    """Answer analytics over HTTP."""
    garbage.put_off()
    from readers.main import run

    run(configured())
