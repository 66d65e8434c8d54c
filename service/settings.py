"""Every setting, in one class, each with a sentence. `zenstep settings` prints it as the table of the README."""

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.clients import networks

_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")  # as browsers write it

JwtAlgorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]


class SettingsError(Exception):
    """A setting is missing or wrong; the message names the environment variable."""


class Settings(BaseSettings):
    """Read from the environment, each name with ZENSTEP_ before it."""

    model_config = SettingsConfigDict(env_prefix="ZENSTEP_", extra="ignore")

    log_url: str = Field(
        "sqlite:///.zenstep/log.db",
        description="Where the log is: `kafka://host:port[,host:port]`, or `sqlite:///path` for one machine.",
    )
    store_url: str = Field(
        "sqlite:///.zenstep/store.db",
        description="Where the store is: `postgresql://user:password@host/db`, or `sqlite:///path`.",
    )
    limits_url: str | None = Field(
        None,
        description="Where edges and readers count requests together: `redis://[user:password@]host[:port][/db]` or "
        "`rediss://...`. Each process counts alone without it.",
    )
    topic_prefix: str = Field("zenstep", description="What the topics' names begin with.")
    partitions: int = Field(8, ge=1, description="Partitions of a topic when `zenstep topics create` makes it.")
    replication: int = Field(1, ge=1, description="Copies of a topic when `zenstep topics create` makes it on Kafka.")
    group: str = Field("zenstep-workers", description="The workers' consumer group.")

    user_hash_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="Secret that user ids are hashed with at the edge. Changing it makes every user a new one.",
    )
    edge_host: str = Field("127.0.0.1", description="Address the edge listens on.")
    edge_port: int = Field(8080, ge=0, le=65535, description="Port the edge listens on.")
    edge_admin_port: int = Field(9101, ge=0, le=65535, description="The edge's port for /livez, /readyz, /metrics.")
    produce_timeout: float = Field(
        3.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds a request waits for the log's acknowledgement before it is spooled, or a 503 without one.",
    )
    spool_path: str | None = Field(
        None,
        description="Folder of the edge's spool, one edge each, on a disk that outlives the process. "
        "Requests are a 503 while the log is away without it.",
    )
    spool_max_bytes: int = Field(1024**3, ge=1024**2, description="Bytes the spool holds at most.")
    spool_max_age: float = Field(
        24 * 3600.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that the oldest spooled event may wait; the spool takes no more until it is flushed.",
    )

    trusted_proxies: str = Field(
        "",
        description="Networks of proxies with commas between, such as `10.0.0.0/8`, whose X-Forwarded-For is believed.",
    )

    worker_admin_port: int = Field(9102, ge=0, le=65535, description="The worker's port for /livez, /readyz, /metrics.")
    batch_records: int = Field(1000, ge=1, description="Records a worker takes into one transaction at most.")
    poison_in_a_row: int = Field(
        1000,
        ge=1,
        description="So many events in a row that no client can have caused to be set aside stop the worker.",
    )
    poison_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Such a share of the last 10,000 events or more, set aside for such a reason, stops the worker.",
    )

    reader_host: str = Field("127.0.0.1", description="Address the reader listens on.")
    reader_port: int = Field(8081, ge=0, le=65535, description="Port the reader listens on.")
    reader_admin_port: int = Field(9103, ge=0, le=65535, description="The reader's port for /livez, /readyz, /metrics.")
    dashboard_origins: str = Field(
        "",
        description="Origins with commas between, such as `https://app.example.com`, whose pages may read analytics.",
    )
    admin_host: str = Field("127.0.0.1", description="Address that every admin port listens on.")

    jwt_algorithm: JwtAlgorithm = Field(
        "HS256",
        description="The one algorithm session tokens are signed with; what a token says of itself is ignored.",
    )
    jwt_secret: SecretStr | None = Field(
        None, min_length=32, description="The Supabase project's JWT secret, for HS256."
    )
    jwks_url: str | None = Field(None, description="The Supabase project's JWKS document, for RS256, ES256 and EdDSA.")
    jwt_issuer: str | None = Field(
        None,
        description="The `iss` a session token must have, such as `https://PROJECT.supabase.co/auth/v1`.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level logged.")

    @field_validator("log_url")
    @classmethod
    def _log_url(cls, value: str) -> str:
        if not value.startswith(("kafka://", "sqlite:///")):
            raise ValueError("must begin with kafka:// or sqlite:///")
        return value

    @field_validator("store_url")
    @classmethod
    def _store_url(cls, value: str) -> str:
        if not value.startswith(("postgresql://", "postgres://", "sqlite:///")):
            raise ValueError("must begin with postgresql:// or sqlite:///")
        return value

    @field_validator("limits_url")
    @classmethod
    def _limits_url(cls, value: str | None) -> str | None:
        if value and not _is_redis(value):
            raise ValueError("must be redis://[user:password@]host[:port][/db], or rediss://")
        return value or None

    @field_validator("trusted_proxies")
    @classmethod
    def _trusted_proxies(cls, value: str) -> str:
        try:
            networks(value)
        except ValueError:
            raise ValueError("must be networks such as 10.0.0.0/8, with commas between") from None
        return value

    @field_validator("dashboard_origins")
    @classmethod
    def _dashboard_origins(cls, value: str) -> str:
        if not all(_ORIGIN.fullmatch(origin) for origin in split(value)):
            raise ValueError("must be origins such as https://app.example.com, with commas between")
        return value

    def require(self, name: str) -> str:
        """The value of an optional setting. Raises SettingsError where it is not set."""
        value = getattr(self, name)
        if value is None or value == "":
            raise SettingsError(f"ZENSTEP_{name.upper()} is not set")
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def split(value: str) -> list[str]:
    """The parts of a setting that has commas between them."""
    return [part.strip() for part in value.split(",") if part.strip()]


def load(**given: Any) -> Settings:
    """From the environment, but for what is given. Raises SettingsError, naming each wrong variable."""
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = (f"ZENSTEP_{str(e['loc'][0]).upper()}: {_said(e)}" for e in error.errors(include_input=False))
        raise SettingsError("; ".join(problems)) from None


def _said(error: ErrorDetails) -> str:
    """Pydantic's message, where it would speak of validation instead of the value."""
    if error["type"] == "too_short":
        return f"must have at least {error['ctx']['min_length']} characters"
    return error["msg"].removeprefix("Value error, ")


def _is_redis(url: str) -> bool:
    """Without a query: it could change what an edge relies on, such as how long it waits."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        return False
    return usable and not parts.query and not parts.fragment and bool(re.fullmatch(r"/?\d*", parts.path))


def markdown() -> str:
    """The settings as a Markdown table."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        rows.append(
            f"| `ZENSTEP_{name.upper()}` | {default} | {(field.description or '').replace('|', chr(92) + '|')} |"
        )
    return "\n".join(rows)
