"""What the text of a setting may be: functions that read it, and functions that return such a one.

What they say in a ValueError is for an operator, and does not repeat the text, which may be a secret.
"""

import re
from collections.abc import Callable
from math import inf, isfinite
from typing import TypeVar
from urllib.parse import urlsplit

from service.clients import networks

Parse = Callable[[str], object]
N = TypeVar("N", int, float)

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")  # as browsers write it


def secret(least: int) -> Parse:
    """Of so many characters or more."""

    def parse(value: str) -> str:
        if len(value) < least:
            raise ValueError(f"must have at least {least} characters")
        return value

    return parse


def whole(least: int, most: float = inf) -> Parse:
    """A whole number from the least to the most."""

    def parse(value: str) -> int:
        return _within(_number(int, value, "whole number"), least, most)

    return parse


def above_zero(most: float = inf) -> Parse:
    """Any other number, to the most."""

    def parse(value: str) -> float:
        number = _number(float, value, "number")
        if not isfinite(number):
            raise ValueError("must be finite")
        if number <= 0:
            raise ValueError("must be greater than 0")
        return _within(number, 0, most)

    return parse


def one_of(*words: str) -> Parse:
    def parse(value: str) -> str:
        if value not in words:
            *others, last = [f"'{word}'" for word in words]
            raise ValueError(f"must be {', '.join(others)} or {last}")
        return value

    return parse


def address(*beginnings: str, said: str) -> Parse:
    """Of a server or a file, which is looked at more closely by who opens it."""

    def parse(value: str) -> str:
        if not value.startswith(beginnings):
            raise ValueError(f"must begin with {said}")
        return value

    return parse


def redis_address(value: str) -> str | None:
    """None where the text is empty."""
    if value and not _is_redis(value):
        raise ValueError("must be redis://[user:password@]host[:port][/db], or rediss://")
    return value or None


def network_list(value: str) -> str:
    try:
        networks(value)
    except ValueError:
        raise ValueError("must be networks such as 10.0.0.0/8, with commas between") from None
    return value


def origin_list(value: str) -> str:
    if not all(_ORIGIN.fullmatch(origin) for origin in split(value)):
        raise ValueError("must be origins such as https://app.example.com, with commas between")
    return value


def split(value: str) -> list[str]:
    """The parts of a setting that has commas between them."""
    return [part.strip() for part in value.split(",") if part.strip()]


def _number(kind: type[N], value: str, name: str) -> N:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"must be a {name}") from None


def _within(number: N, least: float, most: float) -> N:
    if number < least:
        raise ValueError(f"must be {least} or more")
    if number > most:
        raise ValueError(f"must be {most} or less")
    return number


def _is_redis(url: str) -> bool:
    """Without a query: it could change what an edge relies on, such as how long it waits."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        return False
    return usable and not parts.query and not parts.fragment and bool(re.fullmatch(r"/?\d*", parts.path))
