"""Which rows the commands of `zenstep rejected` are about, and how a place is written."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cli.parameters import TIME, UUID
from schemas.records import Place

F = TypeVar("F", bound=Callable[..., Any])


class PlaceType(click.ParamType[Place]):
    """As `zenstep rejected list` prints it."""

    name = "TOPIC/PARTITION/OFFSET/LINE/EVENT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        topic, *numbers = str(value).rsplit("/", 4)
        try:
            partition, offset, line, event = map(int, numbers)
        except ValueError:
            self.fail(f"{value!r} is not a place such as zenstep.events/0/12/0/-1", param, ctx)
        return Place(topic, partition, offset, line, event)


def filters(function: F) -> F:
    """The options that choose rows."""
    for option in (
        click.option("--until", type=TIME, help="Received before this time."),
        click.option("--since", type=TIME, help="Received at this time or later: 2026-03-30, or 2026-03-30T12:00Z."),
        click.option("--org", "organisation", type=UUID, help="Of this organisation."),
        click.option("--reason", "reasons", multiple=True, help="Of this reason; `refused` is all of the edge's."),
    ):
        function = option(function)
    return function


def written(place: Place) -> str:
    """As PlaceType reads it."""
    return "/".join(map(str, place))
