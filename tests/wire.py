"""One TCP connection to a server, byte by byte, and the answers that come over it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx


class Connection:
    """Raises TimeoutError where the server says nothing for half a minute."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._read = b""

    def send(self, content: bytes) -> None:
        self._socket.sendall(content)

    def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The next answer: status, headers, body. Raises ConnectionError where there is none."""
        while b"\r\n\r\n" not in self._read:
            self._receive()
        head, _, rest = self._read.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        self._read = rest
        length = int(headers.get(b"content-length", b"0"))
        while len(self._read) < length:
            self._receive()
        body, self._read = self._read[:length], self._read[length:]
        return int(lines[0].split()[1]), headers, body

    def closed(self) -> bool:
        """Waits for the other side to close, without another byte."""
        try:
            return not self._read and self._socket.recv(1) == b""
        except ConnectionError:
            return True

    def _receive(self) -> None:
        received = self._socket.recv(65536)
        if not received:
            raise ConnectionError("closed before the answer")
        self._read += received


@contextmanager
def connected(base: httpx.URL | str) -> Iterator[Connection]:
    url = httpx.URL(base)
    with socket.create_connection((url.host, url.port or 80), timeout=30) as opened:
        yield Connection(opened)


def request(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: e", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
