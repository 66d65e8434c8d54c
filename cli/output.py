"""What every command shares: results as text or JSON, and a user's mistake as one clear line instead of a trace."""

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

import click
import orjson
import sqlalchemy as sa

from backends.log import LogError
from backends.store.catalog import Catalog, CatalogError
from backends.store.engine import open_engine
from schemas.ids import is_uuid
from service.settings import Settings, SettingsError, load

P = ParamSpec("P")
R = TypeVar("R")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


class UuidType(click.ParamType[str]):
    name = "UUID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_uuid(str(value)):
            self.fail(f"{value!r} is not a UUID", param, ctx)
        return str(value).lower()


UUID = UuidType()


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turns what a user can mend into `Error: ...` and exit code 1."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (SettingsError, CatalogError, LogError, ValueError) as error:
            raise click.ClickException(str(error) or type(error).__name__) from None
        except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
            missing = "no such table" in str(error.orig)
            text = "the store has no tables yet: run `zenstep migrate`" if missing else "the store does not answer"
            raise click.ClickException(text) from None
        except sa.exc.ProgrammingError as error:
            if not re.search(r"relation .* does not exist", str(error.orig)):
                raise
            raise click.ClickException("the store has no tables yet: run `zenstep migrate`") from None

    return wrapped


def configured() -> Settings:
    """The settings of this process, its logs set up. Raises SettingsError."""
    from service import logs

    loaded = load()
    logs.configure(loaded.log_level)
    return loaded


def catalog() -> Catalog:
    """The catalogue of the configured store. Raises SettingsError."""
    return Catalog(open_engine(load().store_url))


def when(epoch_ms: int | None) -> str:
    """An instant for people, a dash where there is none."""
    if epoch_ms is None:
        return "-"
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def show(result: Any, as_json: bool, text: str) -> None:
    """Prints the result as JSON, or the text."""
    click.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode() if as_json else text)
