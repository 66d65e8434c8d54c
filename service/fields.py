"""A request's header fields. Many parts ask for a few of them each; none should have to go through all."""

from collections.abc import Sequence, Set

Headers = list[tuple[bytes, bytes]]


class Fields(list[tuple[bytes, bytes]]):
    """As they came, names in lower case, as ASGI has them. `whole` when there are no more."""

    __slots__ = ("by_name",)

    def __init__(self) -> None:
        super().__init__()
        self.by_name: dict[bytes, bytes] | None = None  # where no name is there twice

    def whole(self) -> None:
        by_name = dict(self)
        if len(by_name) == len(self):
            self.by_name = by_name


def none_of(headers: Sequence[tuple[bytes, bytes]], names: Set[bytes]) -> bool:
    """Whether nothing came under any of these names, in lower case."""
    if type(headers) is Fields and headers.by_name is not None:
        return headers.by_name.keys().isdisjoint(names)
    return not any(name in names for name, _ in headers)


def values(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> tuple[bytes, ...]:
    """What came under a name, in lower case: nearly always one value or none."""
    if type(headers) is Fields and headers.by_name is not None:
        value = headers.by_name.get(name)
        return () if value is None else (value,)
    return tuple([value for other, value in headers if other == name])
