"""Organisations, snippet keys, members and flows: what administration writes and every role looks up."""

import secrets
import string
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from backends.store.engine import read_only, upsert
from backends.store.keys import Key, find_keys
from backends.store.rows import chunks
from schemas import tables as t
from schemas.ids import KEY_LENGTH, key_digest
from schemas.limits import LIMITS
from schemas.privacy import Privacy

HINT_LENGTH = 4
_ALPHABET = string.ascii_letters + string.digits


class CatalogError(Exception):
    """What was asked cannot be done; the message is for the person who asked."""


class Step(msgspec.Struct, frozen=True):
    step_id: str
    position: int
    name: str
    content: dict[str, Any] = {}


class Flow(msgspec.Struct, frozen=True):
    """A flow with its steps in order. Published where `published_at` (epoch ms) is set."""

    organisation: str
    flow_id: str
    name: str
    type: str
    steps: list[Step]
    published_at: int | None = None
    targeting: dict[str, Any] = {}


class Catalog:
    """Blocking; every call is one transaction. Raises SQLAlchemy's errors where the store is away."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._reading = read_only(engine)

    # Organisations and members

    def create_organisation(self, name: str, organisation: str | None = None) -> str:
        """Returns its id. Raises CatalogError where the id is taken."""
        identifier = organisation or str(uuid.uuid4())
        row = {"organisation_id": identifier, "name": name, "created_at": _now()}
        with self._engine.begin() as connection:
            insert = upsert(connection, t.organisations).values(row).on_conflict_do_nothing()
            # SQLAlchemy does not tell how many rows an INSERT made; what it returns does.
            if connection.execute(insert.returning(t.organisations.c.organisation_id)).first() is None:
                raise CatalogError(f"organisation {identifier} exists already")
        return identifier

    def organisations(self) -> list[dict[str, Any]]:
        """Every organisation, oldest first."""
        with self._reading.begin() as connection:
            rows = connection.execute(sa.select(t.organisations).order_by(t.organisations.c.created_at))
            return [dict(row) for row in rows.mappings()]

    def require_organisation(self, organisation: str) -> None:
        """Raises CatalogError where there is none of this id."""
        with self._reading.begin() as connection:
            _require_organisation(connection, organisation)

    def add_member(self, organisation: str, user: str) -> None:
        """Lets the user of this id (a session token's `sub`) read the organisation. Twice is the same as once."""
        with self._engine.begin() as connection:
            _require_organisation(connection, organisation)
            row = {"organisation_id": organisation, "user_id": user, "created_at": _now()}
            connection.execute(upsert(connection, t.members).values(row).on_conflict_do_nothing())

    def remove_member(self, organisation: str, user: str) -> None:
        """Raises CatalogError where the user is no member of the organisation."""
        m = t.members.c
        with self._engine.begin() as connection:
            _require_organisation(connection, organisation)
            delete = t.members.delete().where(m.organisation_id == organisation, m.user_id == user)
            if connection.execute(delete).rowcount == 0:
                raise CatalogError(f"user {user} is no member of organisation {organisation}")

    def members(self, organisation: str) -> list[dict[str, Any]]:
        """An organisation's members, oldest membership first."""
        m = t.members.c
        query = sa.select(m.user_id, m.created_at).where(m.organisation_id == organisation)
        with self._reading.begin() as connection:
            _require_organisation(connection, organisation)
            return [dict(row) for row in connection.execute(query.order_by(m.created_at, m.user_id)).mappings()]

    def memberships(self, user: str) -> list[str]:
        """The organisations a user belongs to, oldest membership first."""
        m = t.members.c
        query = sa.select(m.organisation_id).where(m.user_id == user).order_by(m.created_at, m.organisation_id)
        with self._reading.begin() as connection:
            return list(connection.execute(query).scalars())

    # Snippet keys

    def create_key(self, organisation: str, environment: str | None = None) -> str:
        """Makes a key and returns it, the only time it can be read: the store keeps a digest."""
        key = "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH))
        with self._engine.begin() as connection:
            _require_organisation(connection, organisation)
            connection.execute(
                t.snippet_keys.insert().values(
                    organisation_id=organisation,
                    key_digest=key_digest(key),
                    hint=key[-HINT_LENGTH:],
                    environment=environment,
                    created_at=_now(),
                )
            )
        return key

    def revoke_key(self, key_or_hint: str, organisation: str | None = None) -> int:
        """Revokes a key given whole, or an organisation's key by its last four characters. Returns how many: 1 or 0.

        Raises CatalogError where the four characters come without an organisation, or are those of several keys.
        """
        k = t.snippet_keys.c
        by_hint = len(key_or_hint) == HINT_LENGTH
        if by_hint and organisation is None:
            raise CatalogError("a key given by its last four characters needs its organisation")
        where = [k.revoked_at.is_(None), k.hint == key_or_hint if by_hint else k.key_digest == key_digest(key_or_hint)]
        if organisation is not None:
            where.append(k.organisation_id == organisation)
        with self._engine.begin() as connection:
            revoked = connection.execute(t.snippet_keys.update().where(*where).values(revoked_at=_now())).rowcount
            if revoked > 1:
                raise CatalogError(f"{revoked} keys end in {key_or_hint}: give the whole key")
        return revoked

    def keys(self, organisation: str) -> list[dict[str, Any]]:
        """An organisation's keys without what they are: hint, environment, when made and when revoked."""
        k = t.snippet_keys.c
        query = sa.select(k.hint, k.environment, k.created_at, k.revoked_at)
        with self._reading.begin() as connection:
            _require_organisation(connection, organisation)
            rows = connection.execute(query.where(k.organisation_id == organisation).order_by(k.created_at))
            return [dict(row) for row in rows.mappings()]

    def find_key(self, digest: str) -> Key | None:
        """What the key with this digest stands for; None where it is unknown or revoked."""
        return self.find_keys([digest]).get(digest)

    def find_keys(self, digests: Sequence[str]) -> dict[str, Key]:
        """What the keys with these digests stand for, without those that are unknown or revoked."""
        found: dict[str, Key] = {}
        with self._reading.begin() as connection:
            for part in chunks(digests):
                found |= find_keys(connection, part)
        return found

    # What an organisation has of its own

    def limits(self, organisation: str) -> dict[str, int]:
        """Requests a minute by bucket, raised ones included."""
        with self._reading.begin() as connection:
            _require_organisation(connection, organisation)
            return _limits(connection, organisation)

    def set_limit(self, organisation: str, bucket: str, per_minute: int | None) -> None:
        """`None` takes the organisation's own limit away again. Every edge follows within 30 s."""
        c = t.organisation_limits.c
        with self._engine.begin() as connection:
            _require_organisation(connection, organisation)
            where = (c.organisation_id == organisation, c.bucket == bucket)
            connection.execute(t.organisation_limits.delete().where(*where))
            if per_minute is not None:
                row = {"organisation_id": organisation, "bucket": bucket, "per_minute": per_minute}
                connection.execute(t.organisation_limits.insert().values(row))

    def privacy(self, organisation: str) -> Privacy:
        """What becomes of events whose browsers ask for privacy."""
        p = t.organisation_privacy.c
        with self._reading.begin() as connection:
            _require_organisation(connection, organisation)
            row = connection.execute(sa.select(p.gpc, p.dnt).where(p.organisation_id == organisation)).first()
        return Privacy(*row) if row else Privacy()

    def set_privacy(self, organisation: str, privacy: Privacy) -> None:
        """Every edge follows within 30 s."""
        row = {"organisation_id": organisation, **privacy._asdict()}
        with self._engine.begin() as connection:
            _require_organisation(connection, organisation)
            insert = upsert(connection, t.organisation_privacy).values(row)
            connection.execute(insert.on_conflict_do_update(index_elements=["organisation_id"], set_=privacy._asdict()))

    # Flows

    def import_flow(self, *flows: Flow) -> None:
        """Makes flows or replaces what is there of them. Counts are by step id, so those of kept steps stay.

        Raises CatalogError, and imports none, where a step would be of two flows of one organisation: a step is asked
        for by its id alone.
        """
        with self._engine.begin() as connection:
            for organisation in sorted({flow.organisation for flow in flows}):
                _require_organisation(connection, organisation, lock=True)
            for flow in flows:
                _replace_flow(connection, flow)
            for flow in flows:
                _require_steps_of_one_flow(connection, flow)

    def publish_flow(self, organisation: str, flow_id: str, published: bool = True) -> None:
        """Raises CatalogError where the organisation has no such flow."""
        f = t.flows.c
        update = t.flows.update().where(f.organisation_id == organisation, f.flow_id == flow_id)
        now = _now()
        with self._engine.begin() as connection:
            result = connection.execute(update.values(published_at=now if published else None, updated_at=now))
            if result.rowcount == 0:
                raise CatalogError(f"organisation {organisation} has no flow {flow_id}")

    def flow(self, organisation: str, flow_id: str) -> Flow | None:
        """One flow, published or not."""
        found = self.flows([(organisation, flow_id)])
        return found[0] if found else None

    def flows(self, wanted: Iterable[tuple[str, str]]) -> list[Flow]:
        """Those of these (organisation, flow id) pairs that exist."""
        pairs = list(wanted)
        f, s = t.flows.c, t.steps.c
        with self._reading.begin() as connection:
            rows = connection.execute(
                sa.select(t.flows).where(sa.tuple_(f.organisation_id, f.flow_id).in_(pairs))
            ).mappings()
            steps = connection.execute(
                sa.select(t.steps)
                .where(sa.tuple_(s.organisation_id, s.flow_id).in_(pairs))
                .order_by(s.position, s.step_id)
            ).mappings()
            return _assemble(list(rows), list(steps))

    def flows_of(self, organisation: str) -> list[Flow]:
        """An organisation's flows by name. Raises CatalogError where there is no such organisation."""
        f, s = t.flows.c, t.steps.c
        with self._reading.begin() as connection:
            _require_organisation(connection, organisation)
            flows = connection.execute(sa.select(t.flows).where(f.organisation_id == organisation)).mappings()
            steps = sa.select(t.steps).where(s.organisation_id == organisation).order_by(s.position, s.step_id)
            found = _assemble(list(flows), list(connection.execute(steps).mappings()))
        return sorted(found, key=lambda flow: (flow.name, flow.flow_id))


def _replace_flow(connection: sa.Connection, flow: Flow) -> None:
    key = {"organisation_id": flow.organisation, "flow_id": flow.flow_id}
    values = {
        "name": flow.name,
        "type": flow.type,
        "published_at": flow.published_at,
        "targeting": flow.targeting,
        "updated_at": _now(),
    }
    insert = upsert(connection, t.flows).values(key | values)
    connection.execute(insert.on_conflict_do_update(index_elements=list(key), set_=values))
    s = t.steps.c
    where = (s.organisation_id == flow.organisation, s.flow_id == flow.flow_id)
    connection.execute(t.steps.delete().where(*where))
    if flow.steps:
        connection.execute(t.steps.insert(), [key | msgspec.to_builtins(step) for step in flow.steps])


def _require_steps_of_one_flow(connection: sa.Connection, flow: Flow) -> None:
    own, other = t.steps.c, t.steps.alias().c
    same = (other.organisation_id == own.organisation_id, other.step_id == own.step_id, other.flow_id != own.flow_id)
    where = (own.organisation_id == flow.organisation, own.flow_id == flow.flow_id)
    query = sa.select(own.step_id, other.flow_id).where(*where, *same).order_by(own.step_id)
    found = connection.execute(query).first()
    if found is not None:
        raise CatalogError(f"step {found[0]} of flow {flow.flow_id} is a step of flow {found[1]} already")


def _assemble(flows: list[sa.RowMapping], steps: list[sa.RowMapping]) -> list[Flow]:
    by_flow: dict[tuple[str, str], list[Step]] = {}
    for row in steps:
        step = Step(row["step_id"], row["position"], row["name"], row["content"])
        by_flow.setdefault((row["organisation_id"], row["flow_id"]), []).append(step)
    return [
        Flow(
            row["organisation_id"],
            row["flow_id"],
            row["name"],
            row["type"],
            by_flow.get((row["organisation_id"], row["flow_id"]), []),
            row["published_at"],
            row["targeting"],
        )
        for row in flows
    ]


def _limits(connection: sa.Connection, organisation: str) -> dict[str, int]:
    c = t.organisation_limits.c
    query = sa.select(c.bucket, c.per_minute).where(c.organisation_id == organisation)
    return LIMITS | {bucket: per_minute for bucket, per_minute in connection.execute(query)}


def _require_organisation(connection: sa.Connection, organisation: str, lock: bool = False) -> None:
    query = sa.select(1).where(t.organisations.c.organisation_id == organisation)
    if lock:
        query = query.with_for_update(key_share=True)
    if connection.execute(query).first() is None:
        raise CatalogError(f"there is no organisation {organisation}")


def _now() -> int:
    return time.time_ns() // 1_000_000
