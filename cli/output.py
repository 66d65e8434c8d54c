"""What every command shares: results as text or JSON, and a user's mistake as one clear line instead of a trace.

Imports nothing of ours at once, since what it would is most of a start, and `--help` needs none of it.
"""

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    import sqlalchemy as sa

    from backends.store.catalog import Catalog
    from service.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

# PostgreSQL's: no rights, not a database to write to, no schema of that name.
_REFUSALS = {"42501", "25006", "3F000"}
_NO_TABLE = "42P01"

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Turns what a user can mend into `Error: ...` and exit code 1."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            problem = _problem(error)
            if problem is None:
                raise
            raise click.ClickException(problem) from None

    return wrapped


def _problem(error: Exception) -> str | None:
    import sqlalchemy as sa

    from backends.log import LogError, LogUnavailable
    from backends.store.catalog import CatalogError
    from service.settings import SettingsError

    if isinstance(error, LogUnavailable):
        return f"the log does not answer: {_first_line(error)}"
    if isinstance(error, SettingsError | CatalogError | LogError | ValueError):
        return _first_line(error)
    if isinstance(error, sa.exc.DBAPIError):
        return store_problem(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def store_problem(error: "sa.exc.DBAPIError") -> str | None:
    """What an operator can mend, without the statement and its values; None where the fault is ours."""
    import sqlalchemy as sa

    line = _first_line(error.orig)
    state = getattr(error.orig, "sqlstate", None)
    if state == _NO_TABLE or line.startswith("no such table"):
        return "the store has no tables yet: run `zenstep migrate`"
    if line.startswith("file is not a database"):
        return "the store's file is not a database"
    if state in _REFUSALS:
        return f"the store refuses: {line}"
    if isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError):
        return f"the store does not answer: {line}"
    return None


def configured() -> "Settings":
    """The settings of this process, its logs set up. Raises SettingsError."""
    from service import logs
    from service.settings import load

    loaded = load()
    logs.configure(loaded.log_level)
    return loaded


def store() -> "sa.Engine":
    """The configured store, closed when the command ends. Raises SettingsError."""
    from backends.store.engine import open_engine
    from service.settings import load

    engine = open_engine(load().store_url)
    click.get_current_context().call_on_close(engine.dispose)
    return engine


def catalog() -> "Catalog":
    """The catalogue of the configured store. Raises SettingsError."""
    from backends.store.catalog import Catalog

    return Catalog(store())


def when(epoch_ms: int | None) -> str:
    """An instant for people, a dash where there is none."""
    if epoch_ms is None:
        return "-"
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def show(result: Any, as_json: bool, text: str, err: bool = False) -> None:
    """Prints the result as JSON, or the text; with `err` where it does not mix with what a command prints."""
    if as_json:
        import orjson

        # The names of a row's columns are SQLAlchemy's own kind of str, which orjson takes for something else.
        text = orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    click.echo(text, err=err)


def _first_line(error: BaseException | None) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
