"""A forgotten person is left out of lines, and of what workers read: pure, and through a worker's batch."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from backends.store.counting import Counting
from backends.store.engine import open_engine
from backends.store.forget import Forgetting
from schemas import records
from schemas import tables as t
from schemas.forgetting import Whom, digest, digests_in, left_out
from schemas.records import Progress, Refused
from schemas.small import person_digest
from tests.worlds import NOW, Partitions, analytics, apply, chosen_range, envelope, event, make_flows, new_id

HASH, OTHER = "5" * 63 + "a", "6" * 64
ANON = 'a "browser" é'
DAY = 86_400_000

USER = Whom(lambda user: user == HASH, lambda anonymous: False)
BROWSER = Whom(lambda user: False, lambda anonymous: anonymous == ANON)


@pytest.fixture
def engine(store_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(store_url)
    yield opened
    opened.dispose()


def without(value: Any, whom: Whom = USER) -> Any:
    return orjson.loads(left_out(orjson.dumps(value), whom))


def test_a_users_fields_go_and_the_anonymous_id_beside_them() -> None:
    mine = {"id": "1", "user": HASH, "anon": ANON, "name": "x"}
    theirs = {"id": "2", "user": OTHER, "anon": ANON}
    assert without({"org": "o", "events": [mine, theirs]}) == {"org": "o", "events": [{"id": "1", "name": "x"}, theirs]}
    assert without({"kind": "progress", "user": HASH, "completed": True}) == {"kind": "progress", "completed": True}
    refused = {
        "kind": "refused",
        "body": {"userId": HASH, "anonymousId": ANON, "events": [{"userId": HASH}, {"url": "u"}]},
    }
    assert without(refused) == {"kind": "refused", "body": {"events": [{}, {"url": "u"}]}}


def test_an_anonymous_ids_fields_go_and_the_user_beside_them_stays() -> None:
    assert without({"events": [{"user": OTHER, "anon": ANON}, {"anonymousId": ANON}]}, BROWSER) == {
        "events": [{"user": OTHER}, {}]
    }


def test_all_else_stays_byte_for_byte() -> None:
    data = b'{ "n" : 123456789012345678901234567890 , "x":1e400,"user":"' + OTHER.encode() + b'","t":"\\u00e9" }'
    line = b'{"user":"' + HASH.encode() + b'","data":' + data + b',"z":[1, 2]}'
    assert left_out(line, USER) == b'{"data":' + data + b',"z":[1, 2]}'


@pytest.mark.parametrize(
    "value", [b"", b"{}", b"[]", b'"' + HASH[:63].encode() + b'"', b'{"user":"%s"}' % OTHER.encode()]
)
def test_where_they_are_not_the_line_is_the_very_same(value: bytes) -> None:
    assert left_out(value, USER) is value


@pytest.mark.parametrize(
    "line",
    [
        b'{"events":[{"user":"%s","anon":' % HASH.encode(),
        b"\xff" + HASH.encode() + b"\x00",
        b"[" * 100_000 + HASH.encode(),
        b'{"session":"%s"}' % HASH.encode(),
        b'{"user":"%s","user":null}' % HASH.encode(),
        b"5" * 40 + HASH.encode() + b"5" * 40,
        b'{"user":"%s"}' % "".join(f"\\u{ord(c):04x}" for c in HASH).encode(),
    ],
)
def test_whatever_the_bytes_are_the_hash_is_not_in_them_any_more(line: bytes) -> None:
    after = left_out(line, USER)
    assert HASH.encode() not in after and after != line
    assert left_out(after, USER) == after, "once is enough"


def test_an_anonymous_id_goes_from_a_torn_line_too() -> None:
    torn = b'{"events":[{"anon":' + orjson.dumps(ANON) + b',"name":'
    assert left_out(torn, BROWSER) == b'{"events":[{"anon":"","name":'
    assert list(digests_in(torn)) == [digest(None, ANON)]
    assert list(digests_in(b"x" + HASH.encode())) == [digest(HASH)]
    short = Whom(lambda user: False, lambda anonymous: anonymous == "a")
    assert left_out(b'{"name":"a","anon":"b"', short) == b'{"name":"a","anon":"b"'


# Through a worker


def forget(
    engine: sa.Engine, organisation: str, at: int, user: str | None = HASH, anonymous: str | None = None
) -> None:
    Forgetting(engine, organisation).enter([digest(user, anonymous)], at)


def bodies(engine: sa.Engine) -> bytes:
    with engine.connect() as connection:
        return b"\n".join(connection.execute(sa.select(t.rejected.c.body)).scalars())


def persons(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(sa.select(t.checklist_progress.c.person)).scalars())


def test_what_was_received_until_then_counts_without_them_and_what_came_later_with_them(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    forget(engine, organisation, NOW)
    fields: dict[str, Any] = {"flow": flow.flow_id, "user": HASH, "time": NOW - 1000}
    until, later = envelope(organisation, event(**fields)), envelope(organisation, event(**fields), received=NOW + 1)
    span = chosen_range(NOW // DAY * DAY, NOW // DAY * DAY + DAY)
    apply(engine, log.record(until))
    assert {k: analytics(engine, flow, span)["totals"][k] for k in ("views", "uniqueUsers")} == {
        "views": 1,
        "uniqueUsers": 0,
    }
    apply(engine, log.record(later))
    assert {k: analytics(engine, flow, span)["totals"][k] for k in ("views", "uniqueUsers")} == {
        "views": 2,
        "uniqueUsers": 1,
    }


def test_the_browser_beside_a_forgotten_user_does_not_count_in_their_place(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    forget(engine, organisation, NOW)
    forget(engine, organisation, NOW, None, ANON)
    seen = [event(flow=flow.flow_id, user=HASH, anon="b"), event(flow=flow.flow_id, anon=ANON)]
    apply(engine, log.record(envelope(organisation, *seen, event(flow=flow.flow_id, user=OTHER, anon=ANON))))
    span = chosen_range(NOW // DAY * DAY, NOW // DAY * DAY + DAY)
    assert analytics(engine, flow, span)["totals"]["uniqueUsers"] == 1, "the other user"


def test_progress_of_a_forgotten_user_counts_and_leaves_nothing(engine: sa.Engine) -> None:
    organisation, [flow] = make_flows(engine, [1])
    log = Partitions()
    forget(engine, organisation, NOW)
    about: dict[str, Any] = {"v": 1, "org": organisation, "flow": flow.flow_id, "step": flow.steps[0].step_id}
    lines = [
        Progress(**about, id=new_id(), received=NOW, user=HASH),
        Progress(**about, id=new_id(), received=NOW, user=OTHER),
    ]
    apply(engine, log.record(*map(records.encode, lines)))
    assert persons(engine) == [person_digest(OTHER, None)]
    assert Counting(engine).ledger() == {"consumed": 2, "counted": 2}
    apply(engine, log.record(records.encode(Progress(**about, id=new_id(), received=NOW + 1, user=HASH))))
    assert len(persons(engine)) == 2, "they came back"


def test_what_is_set_aside_of_them_has_no_hash_whatever_the_reason(engine: sa.Engine) -> None:
    organisation, _ = make_flows(engine, [1])
    stranger, _ = make_flows(engine, [1])
    log = Partitions()
    forget(engine, organisation, NOW)
    refused = records.encode(Refused(v=1, org=organisation, received=NOW, route="events", reason="invalid")).replace(
        b'"route"', b'"body":{"userId":"%s","name":"kept"},"route"' % HASH.encode()
    )
    lines: list[Any] = [
        envelope(organisation, event(flow=new_id(), user=HASH, name="kept")),
        refused,
        records.encode(envelope(organisation, event("custom", name="kept", user=HASH))).replace(b'"v":1', b'"v":2'),
        records.encode(envelope(organisation, event("custom", name="kept", user=HASH)))[:-1],
    ]
    apply(engine, log.record(*lines))
    assert Counting(engine).ledger()["consumed"] == 4
    assert set(Counting(engine).ledger()) - {"consumed"} == {
        *("rejected:unknown_flow", "rejected:refused:invalid", "rejected:newer_version", "rejected:unreadable"),
    }
    assert bodies(engine).count(b"kept") == 4
    assert HASH.encode() not in bodies(engine)
    apply(engine, log.record(envelope(stranger, event(flow=new_id(), user=HASH))))
    assert bodies(engine).count(HASH.encode()) == 1, "in another organisation it is somebody else"


def test_a_batch_of_refused_lines_alone_waits_for_who_is_forgotten_meanwhile(engine: sa.Engine) -> None:
    """Else such a batch could write what it read before, after all was removed."""
    organisation, _ = make_flows(engine, [1])
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    refused = Refused(v=1, org=organisation, received=NOW, route="events", reason="invalid")
    sa.event.listen(engine, "before_cursor_execute", note)
    apply(engine, Partitions().record(records.encode(refused)))
    sa.event.remove(engine, "before_cursor_execute", note)
    lock = next(n for n, s in enumerate(statements) if "FROM organisations" in s)
    asked = next(n for n, s in enumerate(statements) if s.startswith("SELECT forgotten."))
    assert lock < asked
    if engine.dialect.name == "postgresql":
        assert "FOR NO KEY UPDATE" in statements[lock]


def test_told_twice_the_later_time_holds(engine: sa.Engine) -> None:
    organisation, _ = make_flows(engine, [1])
    for at in (NOW, NOW + 5, NOW - 5):
        forget(engine, organisation, at)
    with engine.connect() as connection:
        assert connection.execute(sa.select(t.forgotten)).all() == [(organisation, digest(HASH), NOW + 5)]
