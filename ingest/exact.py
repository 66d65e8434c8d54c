"""Finds a route by its whole path before Starlette tries one pattern after the other, behind its middleware."""

from collections.abc import Coroutine, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import Lifespan, Receive, Scope, Send

from ingest.endpoint import Endpoint
from service.cycle import Cycle


class Application(Starlette):
    """Those of the edge's routes that have nothing to fill in are asked by name; for all else it is Starlette."""

    def __init__(self, routes: Sequence[BaseRoute], lifespan: Lifespan[Any]) -> None:
        super().__init__(routes=routes, lifespan=lifespan)
        self._exact = {
            found.path: found.endpoint
            for found in routes
            if isinstance(found, Route) and isinstance(found.endpoint, Endpoint) and "{" not in found.path
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """No coroutine of its own: every waking of a request would pass through it."""
        endpoint = self._exact.get(scope["path"]) if scope["type"] == "http" else None
        return (endpoint or super().__call__)(scope, receive, send)

    def at_once(self, cycle: Cycle) -> bool:
        """Takes a request that can go without a task; see service/connections.py."""
        endpoint = self._exact.get(cycle.scope["path"])
        return endpoint is not None and endpoint.at_once(cycle)
