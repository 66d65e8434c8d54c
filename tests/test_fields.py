"""Header fields by name: the same as going through all of them, whether a name is there once, twice or not at all."""

from hypothesis import given
from hypothesis import strategies as st

from service.fields import Fields, values

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
