"""Ports that stay a process's own while it is down."""

import random
import socket

_FIRST, _LAST = 20_000, 32_000  # below what the system gives to outgoing connections
_given: set[int] = set()


def settled_port() -> int:
    """Free now, and no outgoing connection takes it while its process is down.

    A client that tries again and again could even connect to itself on a port of the system's own range.
    """
    while True:
        port = random.randrange(_FIRST, _LAST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
