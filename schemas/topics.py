"""The topics' names. One prefix holds all of one installation."""

import msgspec

from schemas import records


class Topics(msgspec.Struct, frozen=True):
    """The names of an installation's topics, `zenstep.events` and so on."""

    prefix: str = "zenstep"

    @property
    def events(self) -> str:
        return f"{self.prefix}.{records.EVENTS}"

    @property
    def heartbeats(self) -> str:
        return f"{self.prefix}.{records.HEARTBEATS}"

    @property
    def refused(self) -> str:
        return f"{self.prefix}.{records.REFUSED}"

    def all(self) -> list[str]:
        return [self.events, self.heartbeats, self.refused]
