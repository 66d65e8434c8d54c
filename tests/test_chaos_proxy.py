"""The crash harness' proxy: each mode does to a connection what its name says."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from chaos.ports import settled_port
from chaos.proxy import Loop, Proxy
from tests.working import until

SHORT = 0.3  # how long nothing has to arrive


class _Echo(socketserver.BaseRequestHandler):
    """Answers what it is sent, in capitals, and remembers it."""

    def handle(self) -> None:
        assert isinstance(self.server, EchoServer)
        while chunk := self.request.recv(1000):
            self.server.received += chunk
            self.request.sendall(chunk.upper())


class EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    received = b""

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that is reset is what is asked for here."""


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    with EchoServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(echo: EchoServer) -> Iterator[Proxy]:
    loop = Loop()
    started = Proxy(loop, settled_port(), int(echo.server_address[1]))
    yield started
    started.close()
    loop.close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with connect(proxy) as connection:
        assert ask(connection, b"first") == b"FIRST"
        yield connection


def connect(proxy: Proxy) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
    connection.settimeout(10)
    return connection


def ask(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(1000)


def is_silent(connection: socket.socket) -> bool:
    connection.settimeout(SHORT)
    try:
        connection.recv(1000)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(10)
    return False


def is_dead(connection: socket.socket) -> bool:
    try:
        return ask(connection, b"x") == b""
    except ConnectionError:
        return True


def test_a_cut_link_resets_connections_and_refuses_new_ones_until_it_is_well(
    proxy: Proxy, client: socket.socket
) -> None:
    proxy.set("cut")
    assert is_dead(client)
    with connect(proxy) as another:
        assert is_dead(another)
    proxy.set("pass")
    with connect(proxy) as another:
        assert ask(another, b"again") == b"AGAIN"


def test_a_slow_link_holds_what_it_forwards(proxy: Proxy, client: socket.socket) -> None:
    proxy.set("delay", 0.2)
    begun = time.monotonic()
    assert ask(client, b"slow") == b"SLOW"
    assert time.monotonic() - begun >= 0.4, "there and back"


def test_a_black_hole_takes_everything_and_gives_it_when_it_is_well(
    proxy: Proxy, client: socket.socket, echo: EchoServer
) -> None:
    proxy.set("black-hole")
    client.sendall(b"hello")
    assert is_silent(client)
    assert echo.received == b"first"
    proxy.set("pass")
    assert client.recv(1000) == b"HELLO"


def test_a_deaf_link_lets_the_server_hear_and_not_the_client(
    proxy: Proxy, client: socket.socket, echo: EchoServer
) -> None:
    proxy.set("deaf")
    client.sendall(b"hello")
    until(lambda: echo.received == b"firsthello")
    assert is_silent(client)
    proxy.set("pass")
    assert client.recv(1000) == b"HELLO"


def test_half_closed_the_client_sees_the_end_and_the_server_still_hears(
    proxy: Proxy, client: socket.socket, echo: EchoServer
) -> None:
    proxy.set("half-close")
    assert client.recv(1000) == b""
    client.sendall(b"hello")
    until(lambda: echo.received == b"firsthello")
    proxy.set("pass")
    assert is_dead(client), "a half that is closed does not open again"


def test_a_server_that_is_down_is_a_reset(proxy: Proxy, client: socket.socket, echo: EchoServer) -> None:
    echo.socket.close()
    with connect(proxy) as another:
        assert is_dead(another)
