"""When an event happened, and which day its id is remembered under. Pure; times are epoch milliseconds."""

from typing import NamedTuple

from schemas.ids import uuid7_ms

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WINDOW_DAYS = 7
NEAR = (WINDOW_DAYS - 1) * DAY  # so long before receipt an event is within the window, whatever its day


class Happened(NamedTuple):
    """The time an event counts at, and what had to be done to it."""

    at: int
    clamped: bool = False  # it lay in the future
    too_old: bool = False  # before the window: not counted


def happened(time: int | None, received: int, sent: int | None) -> Happened:
    """The client's time, corrected where its clock is wrong by over a minute, never later than receipt.

    `sent` is the client's clock at sending: what it differs from receipt is the clock's error and the way's duration.
    Below a minute that is left alone, since the way takes its time too (our decision).
    """
    if time is None:
        return Happened(received)
    if sent is not None and abs(received - sent) > MINUTE:
        time += received - sent
    if time > received + MINUTE:
        return Happened(received, clamped=True)
    return Happened(time, False, time < received - WINDOW_DAYS * DAY)


class Memory(NamedTuple):
    """The day an id is entered under, and whether earlier tries may be under another."""

    day: int
    everywhere: bool


def memory(identifier: str, time: int | None, received: int) -> Memory:
    """The day comes from the event itself, so that a retry on another day meets its first try.

    It is the day of the client's own time, else of the time in a version 7 id. Where there is neither, or it lies more
    than the window from receipt, it is the day of receipt, and a retry may fall on another: so those, and days still to
    come (which were beyond the window when an earlier try arrived), are looked for under every day. With days kept for
    twice the window and one, a retry within the window of the first receipt is always recognised.
    """
    receipt = received // DAY
    if time is None:
        time = uuid7_ms(identifier)
    if time is None or abs(time // DAY - receipt) > WINDOW_DAYS:
        return Memory(receipt, True)
    day = time // DAY
    return Memory(day, day > receipt)
