"""`zenstep rejected`: what workers and edges set aside, and why."""

from typing import Any

import click
import msgspec
import orjson

from backends.store.rejected import Rejected, RejectedRows, Wanted
from cli.output import command, json_option, show, store, when
from cli.rejected_replay import replay
from cli.rejected_rows import PlaceType, filters, written
from schemas.records import Place


@click.group()
def rejected() -> None:
    """What was set aside instead of counted, and why."""


@rejected.command("list")
@filters
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="So many rows at most.")
@click.option("--sums", is_flag=True, help="Count by reason instead.")
@json_option
@command
def list_(
    reasons: tuple[str, ...],
    organisation: str | None,
    since: int | None,
    until: int | None,
    limit: int,
    sums: bool,
    as_json: bool,
) -> None:
    """List what was set aside, the latest first. Bodies are left to `show`."""
    rows, wanted = RejectedRows(store()), Wanted(reasons, organisation, since, until)
    if sums:
        found = rows.sums(wanted)
        lines = [f"{s.rows:>12,}  {s.reason:28} {when(s.first)} to {when(s.last)}{_again(s.replayed)}" for s in found]
        show({"reasons": [s._asdict() for s in found]}, as_json, "\n".join(lines) or "Nothing was set aside.")
        return
    latest = rows.latest(wanted, limit)
    lines = [
        f"{when(row.received_at)}  {row.organisation}  {row.reason:20} {row.size:>7,} bytes  {written(row.place)}"
        + (f"  replayed {when(row.replayed_at)}" if row.replayed_at is not None else "")
        for row in latest
    ]
    show({"rejected": [_told(row) for row in latest]}, as_json, "\n".join(lines) or "Nothing was set aside.")


@rejected.command("show")
@click.argument("place", type=PlaceType())
@json_option
@command
def show_(place: Place, as_json: bool) -> None:
    """Show what stood at PLACE, as `list` prints it, with its body. Users are hashes in it."""
    found = RejectedRows(store()).at(place)
    if not found:
        raise ValueError(f"nothing was set aside at {written(place)}")
    bodies = [_told(row) | {"body": _body(row.body)} for row in found]
    show({"rejected": bodies}, as_json, "\n\n".join(map(_text, found)))


rejected.add_command(replay)


def _again(replayed: int) -> str:
    return f"  {replayed:,} replayed" if replayed else ""


def _told(row: Rejected) -> dict[str, Any]:
    told = {"organisation_id": row.organisation} | row.place._asdict() | {"place": written(row.place)}
    return told | {name: getattr(row, name) for name in ("reason", "received_at", "replayed_at", "size")}


def _text(row: Rejected) -> str:
    named = {
        "organisation": row.organisation,
        "reason": row.reason,
        "received": when(row.received_at),
        "replayed": when(row.replayed_at),
    }
    lines = [written(row.place), *(f"{name:13} {value}" for name, value in named.items())]
    return "\n".join(lines) + "\n\n" + _printable(_pretty(row.body))


def _pretty(body: bytes) -> str:
    try:
        return msgspec.json.format(body, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "backslashreplace")


def _body(body: bytes) -> Any:
    """Its JSON as it is, or its text."""
    try:
        body.decode()  # a Fragment is not looked into
        return orjson.Fragment(msgspec.json.format(body, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "backslashreplace")


def _printable(text: str) -> str:
    """What was set aside may hold anything, and must not command the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
