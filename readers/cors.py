"""Cross-origin access to session routes: for the configured dashboards alone. No cookie is read, so none is allowed."""

from collections.abc import Collection

from starlette.datastructures import Headers

METHODS = "GET, HEAD"
EXPOSED = "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, Content-Disposition"


class Cors:
    """`origins` as browsers write them."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def answer_headers(self, request: Headers) -> dict[str, str]:
        """For every answer, so that a dashboard can read an error too. A page of another origin can read none."""
        if not self._origins:
            return {}
        origin = request.get("origin", "")
        if origin not in self._origins:
            return {"Vary": "Origin"}
        return {"Vary": "Origin", "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}

    def preflight_headers(self, request: Headers) -> dict[str, str]:
        """What the answer to OPTIONS says besides."""
        if request.get("origin", "") not in self._origins:
            return {}
        return {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": "Authorization",
            "Access-Control-Max-Age": "86400",
        }
