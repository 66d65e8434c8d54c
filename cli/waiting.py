"""The `--wait` of commands that prepare an installation: what they need may still be starting."""

import time
from collections.abc import Callable

import click

RETRY_SECONDS = 1.0

wait_option = click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0,
    metavar="SECONDS",
    help="Try again for this long while the server is still starting.",
)


def retry(work: Callable[[], None], seconds: float, *errors: type[Exception]) -> None:
    """Repeats the work while it raises one of these errors; once the seconds are over, the last one is the caller's."""
    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            return work()
        except errors:
            if time.monotonic() + RETRY_SECONDS > deadline:
                raise
            if not told:
                click.echo(f"Not there yet: trying for {seconds:g} seconds.", err=True)
                told = True
        time.sleep(RETRY_SECONDS)
