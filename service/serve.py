"""Runs an ASGI application until SIGTERM: readiness goes off, what is in flight is answered, then it returns."""

import uvicorn
from starlette.types import ASGIApp

from service.admin import AdminServer

DRAIN_SECONDS = 15


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, admin: AdminServer) -> None:
        super().__init__(config)
        self._admin = admin

    async def shutdown(self, sockets: object = None) -> None:
        self._admin.draining = True
        await super().shutdown()


def serve(app: ASGIApp, host: str, port: int, admin: AdminServer) -> None:
    """Blocks. No access log: a query string may hold a key."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        backlog=2048,
    )
    _Server(config, admin).run()
