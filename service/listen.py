"""Takes an address to listen on, and says in one line why it cannot be had."""

import errno
import socket

from service.settings import SettingsError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Raises SettingsError, which names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise cannot_listen(host, port, error) from None


def cannot_listen(host: str, port: int, error: OSError | OverflowError) -> SettingsError:
    """The error in the operator's words."""
    known = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    reason = "the port is in use" if known else getattr(error, "strerror", None) or error
    return SettingsError(f"cannot listen on {host}:{port}: {reason}")
