"""The short way of dating an item says what the rules of workers/clock.py say."""

from hypothesis import given
from hypothesis import strategies as st

from backends.log import Record
from tests.worlds import NOW, envelope, event, new_id
from workers import clock
from workers.items import Item, date

ORGANISATION = "0" * 8 + "-0000-4000-8000-" + "0" * 12
around = st.integers(-9 * clock.DAY, 9 * clock.DAY) | st.integers(-2 * clock.MINUTE, 2 * clock.MINUTE)


@given(time=st.none() | around, sent=st.none() | around, received=st.integers(NOW, NOW + clock.DAY))
def test_however_the_clocks_differ(time: int | None, sent: int | None, received: int) -> None:
    time, sent = (received + off if off is not None else None for off in (time, sent))
    one = event(time=time)
    line = envelope(ORGANISATION, one, received=received, sent=sent)
    record = Record("t", 0, 0, received, b"")
    item = Item((ORGANISATION, "t", 0), record, 0, 0, ORGANISATION, new_id(), line, one, None, None, time, sent)
    date([item])
    assert (item.at, item.clamped, item.too_old) == clock.happened(time, received, sent)
    assert (item.day, item.everywhere) == clock.memory(item.id, time, received)
