"""`zenstep spool`: what an edge that is stopped has left on its disk."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from backends.log import LogError, LogUnavailable
from backends.spool import Spool, SpoolError, SpoolInUse
from backends.spool.folders import spools_in
from backends.spool.spool import SET_ASIDE
from cli.long import STOPPED, LongRun
from cli.output import command, json_option, show, store, when
from ingest.flush import Flusher
from ingest.processes import settings_of
from service.settings import Settings, load

CLOSE_SECONDS = 5.0
STEP_SECONDS = 0.1

path_option = click.option("--path", type=click.Path(path_type=Path), help="The spool's folder.  [ZENSTEP_SPOOL_PATH]")


@click.group()
def spool() -> None:
    """What an edge that is stopped has left on its disk."""


@spool.command()
@path_option
@json_option
@command
def status(path: Path | None, as_json: bool) -> None:
    """Show what is in the spool, or in each of them where the edge is several processes."""
    settings = load()
    _show([_status(settings, folder) for folder in _folders(settings, path)], as_json)


def _status(settings: Settings, folder: Path) -> tuple[dict[str, Any], list[str]]:
    with _opened(settings, folder) as opened:
        there = opened.status()
    aside, unreadable = folder / SET_ASIDE, sorted(map(str, folder.glob("*.damaged")))
    result = {
        "path": str(folder),
        "entries": there.entries,
        "events": there.events,
        "bytes": there.size,
        "oldest": when(there.oldest_at) if there.oldest_at is not None else None,
        "damaged": there.damaged,
        "set_aside": str(aside) if aside.exists() else None,
        "damaged_files": unreadable,
    }
    lines = [
        f"entries  {there.entries:>16,}",
        f"events   {there.events:>16,}",
        f"bytes    {there.size:>16,}",
        f"damaged  {there.damaged:>16,}",
        f"oldest   {when(there.oldest_at)}",
    ]
    if aside.exists():
        lines.append(f"Lines that were too large for their topic are in {aside}.")
    return result, lines + [f"What could not be read is kept in {file}." for file in unreadable]


@spool.command()
@path_option
@json_option
@command
def flush(path: Path | None, as_json: bool) -> None:
    """Put what is in the spool into the log, in its order.

    Ends when the log has acknowledged all of it; exit code 1, with what is left, where the log is away. What the log
    has already is counted once. Run it again to go on. Of an edge of several processes it does one spool after another.
    """
    settings = load()
    folders = _folders(settings, path)
    done = []
    for folder in folders:
        result, lines, problem, stopped = _flushed(settings, folder)
        done.append((result, lines))
        if problem is not None or stopped:
            break
    _show(done, as_json)
    left = f"{_amount(result['left'])} left in {folder}"
    if problem is not None:
        raise click.ClickException(f"{left}: {problem}")
    if stopped and (result["left"]["entries"] or folder != folders[-1]):
        click.echo(f"Stopped: {left}.", err=True)
        raise click.exceptions.Exit(STOPPED)


def _flushed(settings: Settings, folder: Path) -> tuple[dict[str, Any], list[str], str | None, bool]:
    """What was done, and what ended it early, and whether that was the user."""
    with _opened(settings, folder) as opened:
        before = opened.status()
        flusher, problem, stopped = asyncio.run(_flush(opened, settings))
        left = opened.status()
    flushed = {
        "entries": before.entries - left.entries - flusher.set_aside,
        "events": before.events - left.events - flusher.events_set_aside,
    }
    result: dict[str, Any] = {
        "path": str(folder),
        "flushed": flushed,
        "set_aside": {"entries": flusher.set_aside, "events": flusher.events_set_aside},
        "left": {"entries": left.entries, "events": left.events},
    }
    lines = [f"{_amount(flushed)} put into the log."]
    if flusher.set_aside:
        result["set_aside"]["path"] = str(folder / SET_ASIDE)
        lines.append(f"{_amount(result['set_aside'])} too large for the topic, set aside in {folder / SET_ASIDE}.")
    return result, lines, problem, stopped


def _show(of_each: list[tuple[dict[str, Any], list[str]]], as_json: bool) -> None:
    """One spool's as it is, those of several in a list."""
    if len(of_each) == 1:
        ((result, lines),) = of_each
        show(result, as_json, "\n".join(lines))
        return
    texts = ["\n".join([f"{result['path']}:", *lines]) for result, lines in of_each]
    show({"spools": [result for result, _ in of_each]}, as_json, "\n\n".join(texts))


async def _flush(opened: Spool, settings: Settings) -> tuple[Flusher, str | None, bool]:
    """What ended it early, and whether that was the user."""
    from backends.log import open_producer
    from ingest.tally import Tally

    logging.getLogger("ingest").addHandler(logging.NullHandler())  # what it would log is in the result
    producer = open_producer(settings.log_url)
    tally = Tally(store())
    flusher = Flusher(opened, producer, tally)
    problem = None
    events = opened.status().events
    with LongRun("events", events) as run:
        draining = asyncio.create_task(flusher.drain())
        while not draining.done() and not run.stopped:
            await asyncio.wait([draining], timeout=STEP_SECONDS)
            left = opened.status().events
            run.done(events - left)
            events = left
        draining.cancel()
        try:
            await draining
        except asyncio.CancelledError:
            pass
        except LogUnavailable as error:
            problem = f"the log does not answer: {error}"
        except (LogError, SpoolError) as error:
            problem = str(error)
        stopped = run.stopped
    await asyncio.to_thread(producer.close, CLOSE_SECONDS)
    await tally.close()
    return flusher, problem, stopped


def _folders(settings: Settings, path: Path | None) -> list[Path]:
    folder = path or (Path(settings.spool_path) if settings.spool_path is not None else None)
    if folder is None:
        raise click.ClickException("name the spool's folder with --path, or in ZENSTEP_SPOOL_PATH")
    found = spools_in(folder)
    if not found:  # a folder that is no spool is not made into one
        raise click.ClickException(f"there is no spool in {folder}")
    return found


@contextmanager
def _opened(settings: Settings, folder: Path) -> Iterator[Spool]:
    try:
        opened = Spool(folder, settings.spool_max_bytes, settings.spool_max_age)
    except SpoolInUse:
        metrics = f"http://{settings.admin_host}:{_admin_port(settings, folder)}/metrics"
        raise click.ClickException(
            f"the spool {folder} is in use by an edge: its numbers are zenstep_spool_* at {metrics}"
        ) from None
    except SpoolError as error:
        raise click.ClickException(str(error)) from None
    try:
        yield opened
    finally:
        opened.close()


def _admin_port(settings: Settings, folder: Path) -> int:
    """Of the process whose spool it is."""
    of_several = settings.spool_path is not None and folder.parent == Path(settings.spool_path)
    if not of_several or not folder.name.isdecimal():
        return settings.edge_admin_port
    return settings_of(settings, int(folder.name)).edge_admin_port


def _amount(some: dict[str, Any]) -> str:
    return f"{some['events']:,} events in {some['entries']:,} lines"
