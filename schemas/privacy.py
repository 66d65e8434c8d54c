"""What becomes of events whose browser asks for privacy (`Sec-GPC: 1`, `DNT: 1`): an organisation's choice (ours)."""

from typing import Literal, NamedTuple

Treatment = Literal["anonymous", "drop"]
"""`anonymous` keeps the event without user and anonymous id; `drop` does not take it, and says so in `accepted`."""

TREATMENTS: tuple[Treatment, ...] = ("anonymous", "drop")


class Privacy(NamedTuple):
    """By signal. Where both come, the stricter one holds."""

    gpc: Treatment = "anonymous"
    dnt: Treatment = "anonymous"
