"""JSON logs, one object a line on standard error. A message never holds a credential, an address or a user's id."""

import json
import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any

import orjson

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, what was given as `extra`, and an exception's class and place."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # a number beyond 64 bits, half a surrogate pair, a key that is no string
            return json.dumps(line, default=str, skipkeys=True)


def configure(level: str) -> None:
    """Sends all that a process has to say through JsonFormatter: every logger, warnings, and what nobody caught.

    Libraries speak from warnings up. At `debug` from info up: below it they print records, addresses and headers.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    quiet = logging.INFO if level == "debug" else max(logging.WARNING, logging.getLogger().level)
    for chatty in ("kafka", "httpx", "httpcore", "alembic"):
        logging.getLogger(chatty).setLevel(quiet)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logging.getLogger(__name__).critical("uncaught", exc_info=(kind, error or kind(), trace))
