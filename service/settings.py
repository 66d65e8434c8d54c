"""Every setting, in one class, each with a sentence. `zenstep settings` prints it as the table of the README.

Nothing but the standard library reads them, since every command does before anything else.
"""

import os
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from service.values import (
    Parse,
    above_zero,
    address,
    network_list,
    one_of,
    origin_list,
    redis_address,
    secret,
    whole,
)

JwtAlgorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]


class SettingsError(Exception):
    """A setting is missing or wrong; the message names the environment variable."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of each its type, what its text may be, and a sentence. `load` makes one that is right."""

    log_url: Annotated[
        str,
        address("kafka://", "sqlite:///", said="kafka:// or sqlite:///"),
        "Where the log is: `kafka://host:port[,host:port]`, or `sqlite:///path` for one machine.",
    ] = "sqlite:///.zenstep/log.db"
    store_url: Annotated[
        str,
        address("postgresql://", "postgres://", "sqlite:///", said="postgresql:// or sqlite:///"),
        "Where the store is: `postgresql://user:password@host/db`, or `sqlite:///path`.",
    ] = "sqlite:///.zenstep/store.db"
    limits_url: Annotated[
        str | None,
        redis_address,
        "Where edges and readers count requests together: `redis://[user:password@]host[:port][/db]` or "
        "`rediss://...`. Each process counts alone without it.",
    ] = None
    topic_prefix: Annotated[str, str, "What the topics' names begin with."] = "zenstep"
    partitions: Annotated[int, whole(1), "Partitions of a topic when `zenstep topics create` makes it."] = 8
    replication: Annotated[int, whole(1), "Copies of a topic when `zenstep topics create` makes it on Kafka."] = 1
    group: Annotated[str, str, "The workers' consumer group."] = "zenstep-workers"

    user_hash_secret: Annotated[
        str | None,
        secret(16),
        "Secret that user ids are hashed with at the edge. Changing it makes every user a new one.",
    ] = field(default=None, repr=False)
    edge_host: Annotated[str, str, "Address the edge listens on."] = "127.0.0.1"
    edge_port: Annotated[int, whole(0, 65535), "Port the edge listens on."] = 8080
    edge_admin_port: Annotated[int, whole(0, 65535), "The edge's port for /livez, /readyz, /metrics."] = 9101
    produce_timeout: Annotated[
        float,
        above_zero(),
        "Seconds a request waits for the log's acknowledgement before it is spooled, or a 503 without one.",
    ] = 3.0
    spool_path: Annotated[
        str | None,
        str,
        "Folder of the edge's spool, one edge each, on a disk that outlives the process. "
        "Requests are a 503 while the log is away without it.",
    ] = None
    spool_max_bytes: Annotated[int, whole(1024**2), "Bytes the spool holds at most."] = 1024**3
    spool_max_age: Annotated[
        float,
        above_zero(),
        "Seconds that the oldest spooled event may wait; the spool takes no more until it is flushed.",
    ] = 24 * 3600.0

    trusted_proxies: Annotated[
        str,
        network_list,
        "Networks of proxies with commas between, such as `10.0.0.0/8`, whose X-Forwarded-For is believed.",
    ] = ""

    worker_admin_port: Annotated[int, whole(0, 65535), "The worker's port for /livez, /readyz, /metrics."] = 9102
    batch_records: Annotated[int, whole(1), "Records a worker takes into one transaction at most."] = 1000
    poison_in_a_row: Annotated[
        int, whole(1), "So many events in a row that no client can have caused to be set aside stop the worker."
    ] = 1000
    poison_share: Annotated[
        float,
        above_zero(1),
        "Such a share of the last 10,000 events or more, set aside for such a reason, stops the worker.",
    ] = 0.5

    reader_host: Annotated[str, str, "Address the reader listens on."] = "127.0.0.1"
    reader_port: Annotated[int, whole(0, 65535), "Port the reader listens on."] = 8081
    reader_admin_port: Annotated[int, whole(0, 65535), "The reader's port for /livez, /readyz, /metrics."] = 9103
    dashboard_origins: Annotated[
        str,
        origin_list,
        "Origins with commas between, such as `https://app.example.com`, whose pages may read analytics.",
    ] = ""
    admin_host: Annotated[str, str, "Address that every admin port listens on."] = "127.0.0.1"

    jwt_algorithm: Annotated[
        JwtAlgorithm,
        one_of("HS256", "RS256", "ES256", "EdDSA"),
        "The one algorithm session tokens are signed with; what a token says of itself is ignored.",
    ] = "HS256"
    jwt_secret: Annotated[str | None, secret(32), "The Supabase project's JWT secret, for HS256."] = field(
        default=None, repr=False
    )
    jwks_url: Annotated[str | None, str, "The Supabase project's JWKS document, for RS256, ES256 and EdDSA."] = None
    jwt_issuer: Annotated[
        str | None, str, "The `iss` a session token must have, such as `https://PROJECT.supabase.co/auth/v1`."
    ] = None

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        one_of("debug", "info", "warning", "error"),
        "Lowest level logged.",
    ] = "info"

    def require(self, name: str) -> str:
        """The value of an optional setting. Raises SettingsError where it is not set."""
        value = getattr(self, name)
        if value is None or value == "":
            raise SettingsError(f"{variable(name)} is not set")
        return str(value)


def variable(name: str) -> str:
    """The environment's name of a setting."""
    return f"ZENSTEP_{name.upper()}"


def load(**given: Any) -> Settings:
    """From the environment, but for what is given. Raises SettingsError, naming each wrong variable."""
    environment = {name.upper(): value for name, value in os.environ.items()}
    values: dict[str, Any] = {}
    problems = []
    for name in (setting.name for setting in fields(Settings)):
        value = given.get(name, environment.get(variable(name)))
        if value is None:
            continue
        try:
            values[name] = _parse(name)(str(value))
        except ValueError as error:
            problems.append(f"{variable(name)}: {error}")
    if problems:
        raise SettingsError("; ".join(problems))
    return Settings(**values)


def markdown() -> str:
    """The settings as a Markdown table."""
    rows = ["| variable | default | what it is |", "|---|---|---|"]
    for setting in fields(Settings):
        default = "" if setting.default in (None, "") else f"`{setting.default}`"
        rows.append(
            f"| `{variable(setting.name)}` | {default} | {_sentence(setting.name).replace('|', chr(92) + '|')} |"
        )
    return "\n".join(rows)


def _parse(name: str) -> Parse:
    parse: Parse = Settings.__annotations__[name].__metadata__[0]
    return parse


def _sentence(name: str) -> str:
    return str(Settings.__annotations__[name].__metadata__[1])
