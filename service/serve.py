"""Runs an ASGI application until SIGTERM: readiness goes off, what is in flight is answered, then it returns."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from service.admin import AdminServer
from service.connections import BoundedProtocol
from service.garbage import settle
from service.listen import BACKLOG
from service.threads import take_turns

DRAIN_SECONDS = 15


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, admin: AdminServer) -> None:
        super().__init__(config)
        self._admin = admin

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises the signal once more at its end, which kills the process before its roles have closed."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: object = None) -> None:
        self._admin.draining = True
        await super().shutdown()


def config(app: ASGIApp) -> uvicorn.Config:
    """How every HTTP role is served. No access log: a query string may hold a key. No client address is looked at."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        backlog=BACKLOG,
    )


def serve(app: ASGIApp, listener: socket.socket, admin: AdminServer) -> None:
    """Blocks. The listener is closed when it returns."""
    settle()
    take_turns()
    _Server(config(app), admin).run([listener])
