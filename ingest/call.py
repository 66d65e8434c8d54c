"""A request whose key is known."""

import msgspec
from starlette.types import Receive, Scope

from backends.store.keys import Key
from ingest import answers
from ingest.body import body_at_hand, read_body
from ingest.problems import Problem
from schemas.ids import is_uuid


class Call(msgspec.Struct):
    """Whose it is, and how to read its body."""

    key: Key
    scope: Scope
    receive: Receive
    at_hand: bytes | None = None  # the body as it was sent, where all of it has come
    read: bytes | None = None

    def body_at_hand(self) -> bytes:
        """Where it is there. Raises the Refusals of a body. A body that is refused later is noted as `read`."""
        assert self.at_hand is not None
        self.read = body_at_hand(self.scope["headers"], self.at_hand)
        return self.read

    async def body(self) -> bytes:
        """Raises the Refusals of read_body, and ClientGone."""
        if self.at_hand is not None:
            return self.body_at_hand()
        self.read = await read_body(self.scope["headers"], self.receive)
        return self.read

    def path_id(self, name: str) -> str:
        """A UUID of the path, lower-case. Raises a 400 Refusal for any other form (documented)."""
        text: str = self.scope["path_params"][name]
        if not is_uuid(text):
            raise answers.invalid([Problem("id", "Expected a UUID")])
        return text.lower()
