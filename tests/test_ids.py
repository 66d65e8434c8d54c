"""Many ids looked at together are what each of them is alone."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import are_lower_uuids, are_uuids, is_uuid

uuids = st.uuids().map(str) | st.uuids().map(lambda one: str(one).upper())


@st.composite
def nearly(draw: st.DrawFn) -> str:
    """One with something else in one place."""
    one, place = draw(uuids), draw(st.integers(0, 35))
    return one[:place] + draw(st.sampled_from("-0gG \n\u0660\u00e9")) + one[place + 1 :]


@given(st.lists(uuids | nearly() | st.text(min_size=36, max_size=36), max_size=4))
def test_of_36_characters_each(texts: list[str]) -> None:
    assert are_uuids(texts) == all(map(is_uuid, texts))
    assert are_lower_uuids(texts) == all(is_uuid(text) and text == text.lower() for text in texts)
