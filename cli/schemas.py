"""`zenstep schemas`: the JSON Schema files of requests and records."""

from pathlib import Path

import click

from cli.output import command
from schemas.files import FOLDER, schema_files, stale, write


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a file is not current.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    help="Where they are; by default schemas/json.",
)
@command
def schemas(check: bool, folder: Path) -> None:
    """Write the JSON Schemas of request bodies and of records."""
    made = schema_files()
    if check:
        old = stale(folder, made)
        if old:
            raise click.ClickException(f"not current, run `zenstep schemas`: {', '.join(old)}")
        click.echo(f"{len(made)} files are current.")
        return
    for name in write(folder, made):
        click.echo(name)
