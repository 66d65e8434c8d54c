"""Kinds of values that commands take: ids and names."""

import unicodedata
from datetime import UTC, date, datetime
from typing import Any

import click

from schemas.ids import is_uuid

MAX_NAME = 255
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of characters, line and paragraph separators


class UuidType(click.ParamType[str]):
    """A UUID in its hyphenated form, in lower case from here on."""

    name = "UUID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_uuid(str(value)):
            self.fail(f"{value!r} is not a UUID", param, ctx)
        return str(value).lower()


class NameType(click.ParamType[str]):
    """What a person calls something."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        problem = name_problem(str(value))
        if problem is not None:
            self.fail(f"a name {problem}", param, ctx)
        return str(value)


class TimeType(click.ParamType[int]):
    """An instant, epoch milliseconds from here on."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time such as 2026-03-30T12:00:00Z or 2026-03-30", param, ctx)
        if at.tzinfo is None:
            if len(str(value)) > len(date.min.isoformat()):
                self.fail(f"{value!r} needs an offset, such as Z or +02:00", param, ctx)
            at = at.replace(tzinfo=UTC)  # a day begins at midnight UTC
        return round(at.timestamp() * 1000)


UUID = UuidType()
NAME = NameType()
TIME = TimeType()


def name_problem(name: str) -> str | None:
    """What keeps a text from being a name: names stand in lists, one a line, and in columns of 255 characters."""
    if not name.strip():
        return "must not be empty"
    if len(name) > MAX_NAME:
        return f"must have at most {MAX_NAME} characters"
    if any(unicodedata.category(character) in _UNSEEN for character in name):
        return "must be one line of text without control characters"
    return None
