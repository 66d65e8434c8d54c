"""Header fields by name: the same as going through all of them, whether a name is there once, twice or not at all."""

from hypothesis import given
from hypothesis import strategies as st

from service.fields import Fields, none_of, values

NAMES = st.sampled_from([b"host", b"origin", b"dnt"])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=3)), max_size=6), NAMES, st.booleans())
def test_what_came_under_a_name_in_its_order(headers: list[tuple[bytes, bytes]], name: bytes, whole: bool) -> None:
    fields = Fields()
    for header in headers:
        fields.append(header)
    if whole:
        fields.whole()
    expected = [value for other, value in headers if other == name]
    assert list(values(fields, name)) == list(values(headers, name)) == expected


@given(st.lists(st.tuples(NAMES, st.binary(max_size=3)), max_size=6), st.sets(NAMES), st.booleans())
def test_whether_nothing_came_under_some_names(
    headers: list[tuple[bytes, bytes]], names: set[bytes], whole: bool
) -> None:
    fields = Fields()
    fields.extend(headers)
    if whole:
        fields.whole()
    expected = not any(values(headers, name) for name in names)
    assert none_of(fields, names) == none_of(headers, names) == expected
