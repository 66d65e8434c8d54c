"""Where a request ends: a head of the common shape is read in one look, and as every other is."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fields import Fields
from service.framing import MAX_HEAD_BYTES, MAX_HEADERS, BadHead, HeadTooLarge, body_length

HEADERS = st.sampled_from(
    [
        (b"host", b"e"),
        (b"content-length", b"17"),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"gzip"),
        (b"expect", b"100-Continue"),
        (b"expect", b"else"),
        (b"origin", b"https://e"),
    ]
)


def fields(headers: list[tuple[bytes, bytes]], whole: bool = True) -> Fields:
    made = Fields()
    made.extend(headers)
    if whole:
        made.whole()
    return made


def outcome(version: str, headers: Fields, upgrade: bool, short: bool) -> tuple[float, bool] | type[BadHead]:
    try:
        return body_length(version, b"/", headers, upgrade, short)
    except BadHead as error:
        return type(error)


@given(st.sampled_from(["1.0", "1.1", "2.0"]), st.lists(HEADERS, max_size=5), st.booleans(), st.booleans())
def test_the_short_look_sees_what_the_long_one_sees(
    version: str, headers: list[tuple[bytes, bytes]], upgrade: bool, short: bool
) -> None:
    looked_up = outcome(version, fields(headers), upgrade, short)
    assert looked_up == outcome(version, fields(headers, whole=False), upgrade, short)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([(b"host", b"e")], (0.0, False)),
        ([(b"host", b"e"), (b"content-length", b"17")], (17.0, False)),
        ([(b"host", b"e"), (b"transfer-encoding", b"chunked")], (inf, False)),
        ([(b"host", b"e"), (b"content-length", b"17"), (b"expect", b"100-continue")], (17.0, True)),
        ([(b"content-length", b"17")], BadHead),
        ([(b"host", b"e"), (b"host", b"e")], BadHead),
        ([(b"host", b"e"), (b"transfer-encoding", b"gzip")], BadHead),
        ([(b"host", b"e")] + [(b"%d" % n, b"") for n in range(MAX_HEADERS)], HeadTooLarge),
    ],
)
def test_what_a_head_says(headers: list[tuple[bytes, bytes]], found: object) -> None:
    assert outcome("1.1", fields(headers), False, True) == found


def test_a_head_whose_size_is_not_known_is_measured() -> None:
    large = fields([(b"host", b"e"), (b"cookie", b"x" * MAX_HEAD_BYTES)])
    assert outcome("1.1", large, False, False) is HeadTooLarge
