"""Forged, borrowed and worn-out session tokens over real HTTP: each is the documented 401, to the byte."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jwt
import pytest

from backends.store.engine import open_engine
from backends.store.migrate import migrate
from schemas.limits import STRANGERS
from tests.issuer import ISSUER, USER, Jwks, SigningKey, claims, secret_token, serving_jwks
from tests.reading import World, bearer, make_world, path, reading

UNAUTHORIZED = b'{"error":"Unauthorized"}'
STRANGER = "99999999-9999-4999-8999-999999999999"


class Site(NamedTuple):
    """A reader whose tokens are signed with ES256, its issuer and what it reads."""

    client: httpx.Client
    key: SigningKey
    jwks: Jwks
    world: World

    def get(self, token: str) -> httpx.Response:
        return self.client.get(path(self.world.flow), headers=bearer(token))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    url = f"sqlite:///{tmp_path}/store.db"
    engine = open_engine(url)
    migrate(engine)
    key = SigningKey("ES256")
    with (
        serving_jwks(key) as jwks,
        reading(url, jwt_secret=None, jwt_algorithm="ES256", jwks_url=jwks.url) as client,
    ):
        yield Site(client, key, jwks, make_world(engine))
    engine.dispose()


def part(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def unsigned(algorithm: str) -> str:
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims())}."


def with_public_key(key: SigningKey) -> str:
    """HS256, with what everybody knows for a secret."""
    head = part({"alg": "HS256", "kid": key.kid, "typ": "JWT"})
    signer = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signed = f"{head}.{part(claims())}"
    mark = signer.sign(signed.encode(), key.pem())
    return f"{signed}.{base64.urlsafe_b64encode(mark).rstrip(b'=').decode()}"


def tampered(key: SigningKey, **changes: Any) -> str:
    head, _, mark = key.token().split(".")
    return f"{head}.{part(claims(**changes))}.{mark}"


Forge = Callable[[SigningKey], str]
FORGERIES: dict[str, Forge] = {
    "no algorithm": lambda key: unsigned("none"),
    "no algorithm, in capitals": lambda key: unsigned("NONE"),
    "an algorithm that is empty": lambda key: unsigned(""),
    "a signature that is empty": lambda key: key.token().rpartition(".")[0] + ".",
    "signed with the public key": with_public_key,
    "signed with a secret": lambda key: secret_token(),
    "signed by another under the same key id": lambda key: SigningKey("ES256", key.kid).token(),
    "signed by another algorithm's key": lambda key: SigningKey("EdDSA", key.kid).token(),
    "a key id that is a path": lambda key: key.token({"kid": "../../../../dev/null"}),
    "a key id that is an absolute path": lambda key: key.token({"kid": "/dev/null"}),
    "a key id that is an address": lambda key: key.token({"kid": "http://127.0.0.1:1/jwks.json"}),
    "a key id that is SQL": lambda key: key.token({"kid": "' UNION SELECT 'secret' --"}),
    "a key id that is very long": lambda key: key.token({"kid": "k" * 4000}),
    "a key id with a NUL": lambda key: key.token({"kid": key.kid + "\0"}),
    "no key id": lambda key: key.token({}),
    "a key of its own": lambda key: SigningKey("ES256").token({"kid": "x", "jwk": SigningKey("ES256").jwk()}),
    "for another audience": lambda key: key.token(aud="other"),
    "for nobody": lambda key: key.token(aud=None),
    "from another issuer": lambda key: key.token(iss="https://other.example/auth/v1"),
    "from an issuer that begins like ours": lambda key: key.token(iss=ISSUER + "/../other"),
    "from nobody": lambda key: key.token(iss=None),
    "expired": lambda key: key.token(exp=int(time.time()) - 1),
    "without an end": lambda key: key.token(exp=None),
    "not valid yet": lambda key: key.token(nbf=int(time.time()) + 3600),
    "issued tomorrow": lambda key: key.token(iat=int(time.time()) + 86400),
    "of a service": lambda key: key.token(role="service_role"),
    "of a visitor": lambda key: key.token(role="anon"),
    "of nobody": lambda key: key.token(sub=None),
    "another user put in": lambda key: tampered(key, sub=STRANGER),
    "another organisation put in": lambda key: tampered(key, app_metadata={"org_id": STRANGER}),
    "a later end put in": lambda key: tampered(key, exp=4_000_000_000),
    "two tokens": lambda key: f"{key.token()}, {key.token()}",
    "five parts": lambda key: f"{key.token()}.a.b",
}


def test_every_forgery_is_the_same_401_and_a_good_token_is_not(site: Site) -> None:
    assert len(FORGERIES) < STRANGERS, "the limit would answer for the check"
    assert site.get(site.key.token()).status_code == 200
    assert site.client.get(path(site.world.flow)).content == UNAUTHORIZED
    for name, forge in FORGERIES.items():
        answer = site.get(forge(site.key))
        assert (answer.status_code, answer.content) == (401, UNAUTHORIZED), name
        assert "www-authenticate" not in answer.headers or answer.headers["www-authenticate"] == "Bearer"
    assert site.get(site.key.token()).status_code == 200


def test_a_flood_of_key_ids_neither_fetches_without_end_nor_shuts_others_out(site: Site) -> None:
    stranger = SigningKey("ES256")
    assert site.get(site.key.token()).status_code == 200
    fetched = site.jwks.fetches
    answers = [site.get(stranger.token({"kid": f"../{n}"})) for n in range(STRANGERS + 20)]
    assert {answer.status_code for answer in answers[:STRANGERS]} == {401}
    assert {answer.status_code for answer in answers[STRANGERS:]} <= {401, 429}
    assert site.jwks.fetches <= fetched + 1, "one in 15 seconds"
    assert site.get(site.key.token()).status_code == 200, "a member behind the same address still reads"


def test_a_user_of_no_organisation_reads_nothing(site: Site) -> None:
    """Whatever the token says of an organisation: the membership row says."""
    for metadata in ({}, {"org_id": site.world.organisation}):
        for changes in ({"app_metadata": metadata}, {"user_metadata": metadata}):
            answer = site.get(site.key.token(sub=STRANGER, **changes))
            assert (answer.status_code, answer.content) == (404, b'{"error":"Not found"}')
    site.world.catalog.remove_member(site.world.organisation, USER)
    assert site.get(site.key.token()).status_code == 404


def test_a_token_in_the_query_or_of_another_scheme_is_none(site: Site) -> None:
    token = site.key.token()
    asked = path(site.world.flow)
    for name in ("key", "token", "access_token", "jwt"):
        assert site.client.get(asked, params={name: token}).content == UNAUTHORIZED
    for header in (f"Basic {token}", f"JWT {token}", token, f"Bearer{token}"):
        assert site.client.get(asked, headers={"Authorization": header}).content == UNAUTHORIZED
    assert site.client.get(asked, headers={"Cookie": f"sb-access-token={token}"}).content == UNAUTHORIZED


@pytest.mark.parametrize("document", [b"", b"{}", b'{"keys":[]}', b'{"keys":[{"kty":"oct","k":"AAAA","kid":"x"}]}'])
def test_without_a_key_nobody_is_let_in(tmp_path: Path, document: bytes) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    engine = open_engine(url)
    migrate(engine)
    key = SigningKey("ES256")
    world = make_world(engine)
    with serving_jwks(key) as jwks:
        jwks.body = document
        with reading(url, jwt_secret=None, jwt_algorithm="ES256", jwks_url=jwks.url) as client:
            for token in (key.token(), unsigned("none"), secret_token()):
                assert client.get(path(world.flow), headers=bearer(token)).status_code in (401, 503)
    engine.dispose()
