"""The admin port of a process: /livez, /readyz, /metrics, on a thread of its own.

/livez says only that the process runs; it never asks Kafka or the database, so that an orchestrator does not kill
processes for an outage elsewhere. /readyz names what is wrong.
"""

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], str | None]
"""Returns None where all is well, else a few words on what is not."""


class AdminServer:
    """Serves until `close`. `checks` maps the name of a dependency to a check; each is asked at every /readyz."""

    def __init__(self, host: str, port: int, checks: Mapping[str, Check]) -> None:
        self.checks = dict(checks)
        self.draining = False
        admin = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/livez":
                    self._answer(200, b'{"ok":true}', "application/json")
                elif path == "/readyz":
                    problems = admin.problems()
                    body = orjson.dumps({"ready": not problems, "problems": problems})
                    self._answer(503 if problems else 200, body, "application/json")
                elif path == "/metrics":
                    self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
                else:
                    self._answer(404, b'{"error":"Not found"}', "application/json")

            def _answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="admin", daemon=True)
        self._thread.start()

    def problems(self) -> dict[str, str]:
        """What keeps this process from being ready, by name."""
        found = {"draining": "shutting down"} if self.draining else {}
        for name, check in self.checks.items():
            problem = check()
            if problem is not None:
                found[name] = problem
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
