"""An issuer of session tokens for tests: keys of every kind, and a JWKS document served over real HTTP on loopback."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://project.example/auth/v1"
USER = "3b1a7c1e-51a4-4f0e-9f25-0c9ce3a7d5b1"
SECRET = "a-secret-of-more-than-thirty-two-bytes"


class SigningKey:
    """A private key of one algorithm, with its `kid`."""

    def __init__(self, algorithm: str, kid: str | None = None) -> None:
        self.algorithm = algorithm
        self.kid = kid or uuid.uuid4().hex
        self.private: Any = {
            "RS256": lambda: rsa.generate_private_key(65537, 2048),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }[algorithm]()

    def jwk(self) -> dict[str, Any]:
        """As Supabase's JWKS document has it."""
        kinds: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        public: dict[str, Any] = kinds[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        return public | {"kid": self.kid, "alg": self.algorithm, "use": "sig", "key_ops": ["verify"]}

    def pem(self) -> bytes:
        public: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return public

    def token(self, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        headers = {"kid": self.kid} if headers is None else headers
        return jwt.encode(claims(**changes), self.private, self.algorithm, headers=headers)


def claims(**changes: Any) -> dict[str, Any]:
    """A Supabase session's claims with these changed, or left out where None."""
    now = int(time.time())
    whole: dict[str, Any] = {
        "iss": ISSUER,
        "sub": USER,
        "aud": "authenticated",
        "role": "authenticated",
        "iat": now,
        "exp": now + 3600,
        "email": "user@example.com",
        "app_metadata": {"provider": "email"},
        "user_metadata": {},
        "session_id": str(uuid.uuid4()),
        "is_anonymous": False,
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def secret_token(secret: str = SECRET, **changes: Any) -> str:
    """Signed with HS256."""
    return jwt.encode(claims(**changes), secret, "HS256")


class Jwks:
    """The document's endpoint. What it answers can be changed while it runs; `fetches` counts what it was asked."""

    def __init__(self, *keys: SigningKey) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.fetches = 0
        self.asked = threading.Condition()
        self.let_go = threading.Event()  # cleared, it takes requests and does not answer
        self.let_go.set()
        self.drips = False  # it answers a byte at a time, without end
        self.url = ""
        self.body = b""
        self.publish(*keys)

    def publish(self, *keys: SigningKey) -> None:
        self.body = json.dumps({"keys": [key.jwk() for key in keys]}).encode()

    def wait_fetched(self, times: int, seconds: float = 20) -> None:
        """Until it was asked so many times in all."""
        with self.asked:
            assert self.asked.wait_for(lambda: self.fetches >= times, seconds), "the document was not asked for"


@contextmanager
def serving_jwks(*keys: SigningKey) -> Iterator[Jwks]:
    """An endpoint with these keys' document, until the end of the block."""
    jwks = Jwks(*keys)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with jwks.asked:
                jwks.fetches += 1
                jwks.asked.notify_all()
            jwks.let_go.wait(30)
            self.send_response(jwks.status)
            for name, value in {"Content-Length": str(len(jwks.body)), **jwks.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            while jwks.drips:
                self.wfile.write(b" ")
                time.sleep(0.02)
            self.wfile.write(jwks.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that gave up waiting

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    jwks.url = f"http://127.0.0.1:{server.server_address[1]}/auth/v1/.well-known/jwks.json"
    try:
        yield jwks
    finally:
        jwks.drips = False
        jwks.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
