"""`zenstep token`: a session token for development, as Supabase would issue it."""

import time

import click
import jwt

from cli.output import command, json_option, show
from cli.parameters import UUID
from service.settings import SettingsError, load


@click.command()
@click.option("--user", type=UUID, required=True, help="The user's id, a member of some organisation.")
@click.option("--org", "organisation", type=UUID, help="Read this organisation alone.")
@click.option("--minutes", type=click.IntRange(1, 24 * 60), default=60, show_default=True, help="How long it is valid.")
@json_option
@command
def token(user: str, organisation: str | None, minutes: int, as_json: bool) -> None:
    """Print a session token signed with ZENSTEP_JWT_SECRET."""
    settings = load()
    if settings.jwt_algorithm != "HS256":
        raise SettingsError(
            f"ZENSTEP_JWT_ALGORITHM is {settings.jwt_algorithm}: only HS256 tokens can be signed here; "
            "others come from the Supabase project"
        )
    signed = session_token(settings.require("jwt_secret"), settings.jwt_issuer, user, organisation, minutes)
    show({"token": signed}, as_json, signed)


def session_token(
    secret: str, issuer: str | None, user: str, organisation: str | None = None, minutes: int = 60
) -> str:
    """A token with the claims of a Supabase session."""
    now = int(time.time())
    claims: dict[str, object] = {
        "sub": user,
        "aud": "authenticated",
        "role": "authenticated",
        "iat": now,
        "exp": now + 60 * minutes,
    }
    if issuer:
        claims["iss"] = issuer
    if organisation:
        claims["app_metadata"] = {"org_id": organisation}
    return jwt.encode(claims, secret, algorithm="HS256")
