"""Serves an ASGI application on a free port of the loopback, on a thread, as service/serve.py would in a process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from service.serve import config

START_SECONDS = 20
STOP_SECONDS = 20


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Gives `http://127.0.0.1:port`; the application's lifespan runs around it. What is in flight at the end is cut."""
    configured = config(app)
    configured.host, configured.port, configured.timeout_graceful_shutdown = "127.0.0.1", 0, 1
    server = uvicorn.Server(configured)
    thread = threading.Thread(target=server.run, name="serving", daemon=True)
    thread.start()
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the application did not start")
        time.sleep(0.005)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(STOP_SECONDS)
        if thread.is_alive():
            raise RuntimeError("the application did not stop")
