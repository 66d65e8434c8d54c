"""What snippet keys stand for: looked up by their digests, as many at once as an edge wants to know of."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sa

from backends.store.rows import given, parameters
from schemas import tables as t
from schemas.limits import LIMITS
from schemas.privacy import Privacy


class Key(NamedTuple):
    """What a valid snippet key stands for."""

    organisation: str
    environment: str | None = None
    limits: Mapping[str, int] = LIMITS
    privacy: Privacy = Privacy()


def find_keys(connection: sa.Connection, digests: Sequence[str]) -> dict[str, Key]:
    """The keys with these digests, without those that are unknown or revoked."""
    dialect = connection.dialect.name
    values = parameters(dialect, (t.snippet_keys.c.key_digest,), [(digest,) for digest in digests])
    limits: dict[str, dict[str, int]] = {}
    for organisation, bucket, per_minute in connection.execute(_own_limits(dialect), values):
        limits.setdefault(organisation, dict(LIMITS))[bucket] = per_minute
    return {
        digest: Key(whose, environment, limits.get(whose, LIMITS), Privacy(gpc, dnt) if gpc else Privacy())
        for digest, whose, environment, gpc, dnt in connection.execute(_with_privacy(dialect), values)
    }


@cache
def _with_privacy(dialect: str) -> sa.Select[Any]:
    k, p = t.snippet_keys.c, t.organisation_privacy.c
    query = sa.select(k.key_digest, k.organisation_id, k.environment, p.gpc, p.dnt).where(k.revoked_at.is_(None))
    return query.select_from(_asked(dialect).outerjoin(t.organisation_privacy, p.organisation_id == k.organisation_id))


@cache
def _own_limits(dialect: str) -> sa.Select[Any]:
    k, own = t.snippet_keys.c, t.organisation_limits.c
    query = sa.select(own.organisation_id, own.bucket, own.per_minute).where(k.revoked_at.is_(None))
    return query.select_from(_asked(dialect).join(t.organisation_limits, own.organisation_id == k.organisation_id))


def _asked(dialect: str) -> sa.Join:
    digest = t.snippet_keys.c.key_digest
    asked = given(dialect, (digest,))
    return sa.join(asked, t.snippet_keys, asked.c.key_digest == digest)
