"""Session tokens: what is a session, and every forgery that is none. Keys come from a JWKS document over real HTTP."""

import asyncio
import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readers.jwks import JwksKeys
from readers.tokens import Session, TokenVerifier, Unauthorized, from_settings
from service.settings import Settings, SettingsError
from tests.issuer import ISSUER, SECRET, USER, Jwks, SigningKey, claims, secret_token, serving_jwks

ORGANISATION = "6c1d6f5c-9a55-4b6a-8a4e-0f5f5c6f7e11"
PUBLIC_KEY_ALGORITHMS = ["RS256", "ES256", "EdDSA"]


class Issuer(NamedTuple):
    """One installation: what signs its tokens and what checks them."""

    sign: Callable[..., str]
    verifier: TokenVerifier


class Asymmetric(NamedTuple):
    key: SigningKey
    jwks: Jwks
    verifier: TokenVerifier


@pytest.fixture(scope="module", params=PUBLIC_KEY_ALGORITHMS)
def asymmetric(request: pytest.FixtureRequest) -> Iterator[Asymmetric]:
    key = SigningKey(request.param)
    with serving_jwks(key) as jwks:
        verifier = TokenVerifier(key.algorithm, JwksKeys(jwks.url, key.algorithm), ISSUER)
        yield Asymmetric(key, jwks, verifier)


@pytest.fixture(scope="module", params=["HS256", *PUBLIC_KEY_ALGORITHMS])
def issuer(request: pytest.FixtureRequest) -> Iterator[Issuer]:
    if request.param == "HS256":
        yield Issuer(secret_token, from_settings(Settings(jwt_secret=SECRET, jwt_issuer=ISSUER)))
        return
    key = SigningKey(request.param)
    with serving_jwks(key) as jwks:
        configured = Settings(jwt_algorithm=request.param, jwks_url=jwks.url, jwt_issuer=ISSUER)
        yield Issuer(key.token, from_settings(configured))


def verify(verifier: TokenVerifier, token: str) -> Session:
    return asyncio.run(verifier.verify(token))


def refused(verifier: TokenVerifier, token: str) -> bool:
    try:
        verify(verifier, token)
    except Unauthorized:
        return True
    return False


def base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(header: Any, payload: Any, sign: Callable[[bytes], bytes]) -> str:
    """Any header and payload, signed: what PyJWT itself would not make."""
    signing = ".".join(base64(p if isinstance(p, bytes) else json.dumps(p).encode()) for p in (header, payload))
    return f"{signing}.{base64(sign(signing.encode()))}"


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda signing: hmac.digest(secret, signing, hashlib.sha256)


def signed_by(key: SigningKey) -> Callable[[bytes], bytes]:
    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    return lambda signing: algorithm.sign(signing, key.private)


# What is a session


def test_a_supabase_session_is_its_users(issuer: Issuer) -> None:
    assert verify(issuer.verifier, issuer.sign()) == Session(USER, None)


def test_app_metadata_narrows_a_session_to_an_organisation(issuer: Issuer) -> None:
    token = issuer.sign(app_metadata={"org_id": ORGANISATION.upper()})
    assert verify(issuer.verifier, token) == Session(USER, ORGANISATION)


def test_user_metadata_is_never_read(issuer: Issuer) -> None:
    forged = {"org_id": ORGANISATION, "sub": ORGANISATION, "role": "service_role", "app_metadata": {"org_id": USER}}
    assert verify(issuer.verifier, issuer.sign(user_metadata=forged)) == Session(USER, None)
    assert verify(issuer.verifier, issuer.sign(user_metadata=forged, app_metadata=None)) == Session(USER, None)
    assert verify(issuer.verifier, issuer.sign(user_metadata="no object")) == Session(USER, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": USER.upper()},
        {"aud": ["other", "authenticated"]},
        {"iat": None},
        {"app_metadata": None},
        {"app_metadata": "no object"},
        {"app_metadata": {"org_id": None}},
        {"org_id": ORGANISATION},  # not where Supabase keeps what users cannot write
    ],
    ids=str,
)
def test_harmless_differences_are_taken(issuer: Issuer, changes: dict[str, Any]) -> None:
    assert verify(issuer.verifier, issuer.sign(**changes)) == Session(USER, None)


def test_a_token_from_a_clock_a_little_ahead_of_ours_is_taken(issuer: Issuer) -> None:
    ahead = int(time.time()) + 3
    assert verify(issuer.verifier, issuer.sign(iat=ahead, nbf=ahead)) == Session(USER, None)


# What is none


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": [9999999999]},
        {"exp": True},
        {"iss": None},
        {"iss": "https://other.example/auth/v1"},
        {"iss": ISSUER + "/"},
        {"aud": None},
        {"aud": "anon"},
        {"aud": []},
        {"aud": ["anon"]},
        {"aud": {"authenticated": True}},
        {"role": None},
        {"role": "anon"},
        {"role": "service_role"},
        {"role": ["authenticated"]},
        {"sub": None},
        {"sub": ""},
        {"sub": "somebody"},
        {"sub": f"{USER} "},
        {"sub": USER.replace("-", "")},
        {"sub": 7},
        {"app_metadata": {"org_id": "ours"}},
        {"app_metadata": {"org_id": ""}},
        {"app_metadata": {"org_id": 7}},
        {"app_metadata": {"org_id": [ORGANISATION]}},
    ],
    ids=str,
)
def test_a_missing_or_wrong_claim_is_refused(issuer: Issuer, changes: dict[str, Any]) -> None:
    assert refused(issuer.verifier, issuer.sign(**changes))


def test_an_expired_token_is_refused_from_its_very_second(issuer: Issuer) -> None:
    now = int(time.time())
    assert refused(issuer.verifier, issuer.sign(exp=now))
    assert refused(issuer.verifier, issuer.sign(exp=now - 3600))
    assert refused(issuer.verifier, issuer.sign(exp=-1))


def test_a_token_that_is_not_valid_yet_is_refused(issuer: Issuer) -> None:
    later = int(time.time()) + 60
    assert refused(issuer.verifier, issuer.sign(nbf=later))
    assert refused(issuer.verifier, issuer.sign(iat=later))
    assert refused(issuer.verifier, issuer.sign(nbf="now"))


def test_a_token_without_a_signature_is_refused(issuer: Issuer) -> None:
    header, payload, _ = issuer.sign().split(".")
    assert refused(issuer.verifier, f"{header}.{payload}.")
    assert refused(issuer.verifier, f"{header}.{payload}")
    for algorithm in ("none", "None", "NONE", "nOnE", "", None):
        unsigned = compact({"alg": algorithm, "typ": "JWT"}, claims(), lambda _: b"")
        assert refused(issuer.verifier, unsigned)
        assert refused(issuer.verifier, unsigned.removesuffix("."))


def test_a_claim_changed_after_signing_is_refused(issuer: Issuer) -> None:
    header, _, signature = issuer.sign().split(".")
    other = base64(json.dumps(claims(sub=ORGANISATION)).encode())
    assert refused(issuer.verifier, f"{header}.{other}.{signature}")


@settings(deadline=None)
@given(data=st.data())
def test_a_token_with_any_one_character_changed_is_refused(issuer: Issuer, data: st.DataObject) -> None:
    token = issuer.sign()
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126).filter(lambda c: c != token[at]))
    assert refused(issuer.verifier, token[:at] + other + token[at + 1 :])


@settings(deadline=None)
@given(text=st.text(max_size=200) | st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*", fullmatch=True))
def test_text_that_is_no_token_is_refused(issuer: Issuer, text: str) -> None:
    assert refused(issuer.verifier, text)


def test_a_huge_token_is_refused_even_if_it_is_well_signed(issuer: Issuer) -> None:
    assert refused(issuer.verifier, issuer.sign(padding="x" * 9000))
    assert refused(issuer.verifier, "e" * 1_000_000)


def test_headers_and_payloads_that_are_no_objects_are_refused(issuer: Issuer) -> None:
    good = {"alg": "HS256"}
    for strange in (b"", b"[]", b"7", b'"text"', b"null", b"\xff", b"[" * 4000, b"9" * 5000, b'{"alg":"HS256"'):
        assert refused(issuer.verifier, compact(strange, claims(), hs256(SECRET.encode())))
        assert refused(issuer.verifier, compact(good, strange, hs256(SECRET.encode())))


# Forgeries of the key and the algorithm


def test_another_secret_is_refused() -> None:
    verifier = from_settings(Settings(jwt_secret=SECRET, jwt_issuer=ISSUER))
    assert refused(verifier, secret_token(SECRET + "!"))
    assert refused(verifier, compact({"alg": "HS256"}, claims(), hs256(b"")))
    for longer in ("HS384", "HS512"):
        assert refused(verifier, jwt.encode(claims(), SECRET * 2, longer))


def test_hs256_signed_with_the_public_key_is_refused(asymmetric: Asymmetric) -> None:
    """The classic: the verifier's key is public, so whoever takes the algorithm from the token lets anybody sign."""
    pem = asymmetric.key.pem()
    for secret in (pem, pem.strip(), json.dumps(asymmetric.key.jwk()).encode()):
        for algorithm in ("HS256", asymmetric.key.algorithm):
            header = {"alg": algorithm, "kid": asymmetric.key.kid}
            assert refused(asymmetric.verifier, compact(header, claims(), hs256(secret)))


def test_a_strangers_key_under_a_known_id_is_refused(asymmetric: Asymmetric) -> None:
    stranger = SigningKey(asymmetric.key.algorithm, asymmetric.key.kid)
    assert refused(asymmetric.verifier, stranger.token())


def test_another_algorithm_under_a_known_id_is_refused(asymmetric: Asymmetric) -> None:
    for other in PUBLIC_KEY_ALGORITHMS:
        if other != asymmetric.key.algorithm:
            assert refused(asymmetric.verifier, SigningKey(other, asymmetric.key.kid).token())
    if asymmetric.key.algorithm == "RS256":
        for other in ("RS384", "RS512", "PS256"):
            header = {"kid": asymmetric.key.kid}
            assert refused(asymmetric.verifier, jwt.encode(claims(), asymmetric.key.private, other, headers=header))


def test_keys_that_the_token_brings_itself_are_not_used(asymmetric: Asymmetric) -> None:
    stranger = SigningKey(asymmetric.key.algorithm)
    with serving_jwks(stranger) as theirs:
        for kid in (stranger.kid, asymmetric.key.kid):
            headers = {"kid": kid, "jwk": stranger.jwk(), "jku": theirs.url, "x5u": theirs.url}
            assert refused(asymmetric.verifier, stranger.token(headers))
        assert theirs.fetches == 0


@pytest.mark.parametrize("kid", [None, 7, True, "", "unknown", ["kid"], {"kid": 1}, "x" * 1000], ids=repr)
def test_a_key_id_that_is_none_of_ours_is_refused(asymmetric: Asymmetric, kid: object) -> None:
    header = {"alg": asymmetric.key.algorithm, "kid": kid}
    assert refused(asymmetric.verifier, compact(header, claims(), signed_by(asymmetric.key)))


def test_a_token_without_a_key_id_is_refused_where_keys_have_one(asymmetric: Asymmetric) -> None:
    assert refused(asymmetric.verifier, asymmetric.key.token(headers={}))


@pytest.mark.parametrize("crit", [["b64"], ["exp"], ["unknown"], [], "exp", None, [7]], ids=repr)
def test_a_header_said_to_be_critical_is_refused(asymmetric: Asymmetric, crit: object) -> None:
    """None is known here, and what is critical and unknown must not be ignored (RFC 7515)."""
    header = {"alg": asymmetric.key.algorithm, "kid": asymmetric.key.kid, "crit": crit, "exp": 1, "unknown": 1}
    assert refused(asymmetric.verifier, compact(header, claims(), signed_by(asymmetric.key)))
    detached = header | {"b64": False, "crit": ["b64"]}
    assert refused(asymmetric.verifier, compact(detached, claims(), signed_by(asymmetric.key)))


def test_the_craft_of_these_forgeries_is_sound(asymmetric: Asymmetric) -> None:
    """The same tools make a token that is taken, so the refusals above are for the reason they name."""
    header = {"alg": asymmetric.key.algorithm, "kid": asymmetric.key.kid}
    assert verify(asymmetric.verifier, compact(header, claims(), signed_by(asymmetric.key))) == Session(USER, None)
    verifier = from_settings(Settings(jwt_secret=SECRET, jwt_issuer=ISSUER))
    assert verify(verifier, compact({"alg": "HS256"}, claims(), hs256(SECRET.encode()))) == Session(USER, None)


# Settings


def test_without_a_configured_issuer_any_is_taken() -> None:
    verifier = from_settings(Settings(jwt_secret=SECRET))
    assert verify(verifier, secret_token(iss=None)) == Session(USER, None)


@pytest.mark.parametrize(
    ("configured", "named"),
    [
        ({}, "ZENSTEP_JWT_SECRET"),
        ({"jwt_algorithm": "ES256"}, "ZENSTEP_JWKS_URL"),
        ({"jwt_algorithm": "ES256", "jwks_url": "file:///etc/passwd"}, "ZENSTEP_JWKS_URL"),
        ({"jwt_algorithm": "ES256", "jwt_secret": SECRET}, "ZENSTEP_JWKS_URL"),
    ],
    ids=str,
)
def test_a_missing_or_wrong_setting_is_named(configured: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        from_settings(Settings(**configured))
