"""A connection that is held in the hand: what a cycle writes to it, and who works for it."""

from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl


class Held:
    """A connection, its transport and what was written to it."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.flow = FlowControl(self.transport)
        self.tasks: set[Any] = set()
        self.written = b""
        self.completed = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def on_response_complete(self) -> None:
        self.completed += 1

    def spawn(self, work: object) -> None: ...
