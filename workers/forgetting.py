"""People whom the installation was told to forget, left out of what was received until then.

So a topic that is read again, by a rebuild or a replay, does not bring them back.
"""

from collections.abc import Iterable, Iterator

import msgspec

from schemas.forgetting import Whom, digest, digests_in, left_out
from schemas.ids import NIL
from schemas.records import Progress
from workers.items import Item, Rejection


class Forgotten:
    """Of some organisations: when (epoch ms) they were told to forget whom, by schemas.forgetting.digest."""

    def __init__(self, rows: Iterable[tuple[str, str, int]]) -> None:
        self._at = {(organisation, person): at for organisation, person, at in rows}
        self._anywhere: dict[str, int] = {}
        for (_, person), at in self._at.items():
            self._anywhere[person] = max(at, self._anywhere.get(person, 0))

    def __bool__(self) -> bool:
        """Whether there is anybody to be forgotten."""
        return bool(self._at)

    def item(self, item: Item) -> Item:
        """Without its person. Of a checklist's progress that leaves nothing; the write counts all the same."""
        about = item.line if isinstance(item.line, Progress) else item.event
        if about is None:
            return item
        if about.user is not None and self._has(item.organisation, digest(about.user), item.line.received):
            return _replaced(item, user=None, anon=None)
        if about.anon is not None and self._has(item.organisation, digest(None, about.anon), item.line.received):
            return _replaced(item, anon=None)
        return item

    def rejection(self, rejection: Rejection) -> Rejection:
        """With a body that they are not in. A line that does not say whose it is may be of any organisation."""
        if not self._at:
            return rejection
        organisation, received = rejection.organisation, rejection.received
        whom = Whom(
            lambda user: self._has(organisation, digest(user), received),
            lambda anonymous: self._has(organisation, digest(None, anonymous), received),
        )
        return rejection._replace(body=left_out(rejection.body, whom))

    def _has(self, organisation: str, person: str, received: int) -> bool:
        at = self._anywhere.get(person) if organisation == NIL else self._at.get((organisation, person))
        return at is not None and received <= at


def strangers(rejections: Iterable[Rejection]) -> Iterator[str]:
    """The digests of whoever may be in lines that do not say whose they are."""
    for rejection in rejections:
        if rejection.organisation == NIL:
            yield from digests_in(rejection.body)


def _replaced(item: Item, **fields: None) -> Item:
    if item.event is not None:
        return msgspec.structs.replace(item, event=msgspec.structs.replace(item.event, **fields))
    return msgspec.structs.replace(item, line=msgspec.structs.replace(item.line, **fields))
