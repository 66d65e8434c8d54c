"""The admin port of a process: /livez, /readyz, /metrics, on a thread of its own.

/livez says only that the process runs; it never asks Kafka or the database, so that an orchestrator does not kill
processes for an outage elsewhere. /readyz names what is wrong.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.listen import cannot_listen

log = logging.getLogger(__name__)

CHECK_SECONDS = 3.0
CLIENT_SECONDS = 10.0

Check = Callable[[], str | None]
"""Returns None where all is well, else a few words on what is not."""


class Tolerated:
    """A check of what a process can do without as long as `tolerates` says so: named when it is away, no more."""

    def __init__(self, check: Check, tolerates: Callable[[], bool]) -> None:
        self._check = check
        self.tolerates = tolerates

    def __call__(self) -> str | None:
        return self._check()


class NeededAtStart(Tolerated):
    """A check of what a process can go on without once it has had it."""

    def __init__(self, check: Check) -> None:
        super().__init__(check, lambda: self._was_well)
        self._was_well = False

    def __call__(self) -> str | None:
        problem = super().__call__()
        self._was_well = self._was_well or problem is None
        return problem


class AdminServer:
    """Serves until `close`. `checks` maps the name of a dependency to a check; each is asked at every /readyz.

    Raises SettingsError where it cannot listen there.
    """

    def __init__(self, host: str, port: int, checks: Mapping[str, Check]) -> None:
        self.draining = False
        self._checks = dict(checks)
        self._asked: dict[str, Future[str | None]] = {}
        self._lock = threading.Lock()
        try:
            self._server = _Server((host, port), _handler(self))
        except (OSError, OverflowError) as error:
            raise cannot_listen(host, port, error) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="admin", daemon=True)
        self._thread.start()

    def readiness(self) -> tuple[bool, dict[str, str]]:
        """Whether this process should be sent work, and what is wrong, by name."""
        found = {"draining": "shutting down"} if self.draining else {}
        ready = not found
        asked = {name: self._ask(name, check) for name, check in self._checks.items()}
        deadline = time.monotonic() + CHECK_SECONDS
        for name, answer in asked.items():
            try:
                problem = answer.result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                problem = "does not answer"
            if problem is not None:
                found[name] = problem
                check = self._checks[name]
                ready = ready and isinstance(check, Tolerated) and check.tolerates()
        return ready, found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _ask(self, name: str, check: Check) -> "Future[str | None]":
        """On a thread, so that one that hangs holds nothing up; it is not asked again before it has come back."""
        with self._lock:
            before = self._asked.get(name)
            if before is not None and not before.done():
                return before
            answer = self._asked[name] = Future()
        threading.Thread(target=_answer, args=(name, check, answer), name=f"check-{name}", daemon=True).start()
        return answer


def _answer(name: str, check: Check, answer: "Future[str | None]") -> None:
    try:
        answer.set_result(check())
    except Exception as error:
        log.exception("check failed", extra={"check": name})
        answer.set_result(type(error).__name__)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Instead of a trace on standard error, which is for log lines."""
        log.debug("admin client gone", exc_info=True)


def _handler(admin: AdminServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/livez":
                self._answer(200, b'{"ok":true}', "application/json")
            elif path == "/readyz":
                ready, problems = admin.readiness()
                body = orjson.dumps({"ready": ready, "problems": problems})
                self._answer(200 if ready else 503, body, "application/json")
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

    return Handler
