"""`zenstep settings`: every setting with its default and its sentence."""

import click

from service.settings import markdown


@click.command()
def settings() -> None:
    """Print every setting as a Markdown table."""
    click.echo(markdown())
