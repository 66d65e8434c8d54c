"""Secrets planted in everything that a browser sends, and looked for in everything that is kept, said or shown.

Known exceptions: the store has each key's SHA-256 and its last four characters.
"""

import base64
import gzip
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
import redis
import sqlalchemy as sa

from backends.store.catalog import Catalog, Flow, Step
from backends.store.counting import Counting
from backends.store.engine import open_engine
from cli.token import session_token
from ingest.body import MAX_BODY_BYTES
from schemas import tables
from schemas.ids import key_digest
from schemas.privacy import Privacy
from tests.edges import EVENTS, HEARTBEAT, World, bearer, make_world, read_records
from tests.processes import Process, role
from tests.working import until

JWT_SECRET = "planted-jwt-secret-long-enough-for-it"
HASH_SECRET = "planted-hash-secret-long-enough"
CLIENT = "203.0.113.77"  # as a proxy would name it
EMAIL = "planted.person+tag@mail.example"
SECRETS = {
    "a user id": "planted-user-4711",
    "an e-mail address": EMAIL,
    "a token in a query": "planted-query-token",
    "a fragment": "planted-fragment",
    "the query of a referer": "planted-referer-token",
    "an address": CLIENT,
    "an IPv6 address": "2001:db8:77::4711",
    "a cookie": "planted-cookie",
    "a body that is no JSON": "planted-unparsable",
    "an unknown field": "planted-unknown-field",
    "properties of a refused event": "planted-refused-data",
    "who asked for privacy": "planted-private",
    "what was dropped": "planted-dropped",
    "a user agent": "planted-agent",
    "an unknown key": "plantedUnknownKey00000000000000a",
    "the secret of session tokens": JWT_SECRET,
    "the secret of user ids": HASH_SECRET,
}
# What is kept, to show that the search finds what is there.
KEPT = {"name": "kept-custom-name", "session": "kept-session", "page": "/kept/page", "host": "kept.example.org"}
DROPPING, TAKING = 1, 0


class Kept:
    """Everything there is to search: by where it stands, as bytes."""

    def __init__(self) -> None:
        self.places: dict[str, bytes] = {}

    def add(self, place: str, value: bytes) -> None:
        self.places[place] = self.places.get(place, b"") + b"\n" + value

    def where(self, secret: str) -> list[str]:
        """The places that have it, as it is or in one of the ways that programs write text."""
        raw = secret.encode()
        ways = {raw, quote(secret, safe="").encode(), raw.hex().encode(), repr(secret)[1:-1].encode()}
        ways |= {base64.b64encode(raw).rstrip(b"="), orjson.dumps(secret)[1:-1], raw.replace(b"@", b"\\u0040")}
        return [place for place, value in self.places.items() if any(way.lower() in value.lower() for way in ways)]


@pytest.fixture(params=["kafka and postgres", "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    planted: dict[str, Any] = {"log_level": "debug", "group": uuid.uuid4().hex, "trusted_proxies": "127.0.0.0/8"}
    if request.param == "sqlite":
        return make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db", **planted)
    log = f"kafka://{request.getfixturevalue('kafka_servers')}"
    planted["limits_url"] = request.getfixturevalue("redis_url")
    return make_world(log, request.getfixturevalue("postgres_url"), **planted)


def furnish(world: World, user: str) -> list[Flow]:
    """A flow each, a member, and an organisation that drops what asks for privacy."""
    engine = open_engine(world.settings.store_url)
    catalog = Catalog(engine)
    flows = []
    for organisation in world.organisations:
        steps = [Step(str(uuid.uuid4()), 0, "First")]
        flows.append(Flow(organisation, str(uuid.uuid4()), "Tour", "tour", steps, 1))
        catalog.import_flow(flows[-1])
    catalog.set_privacy(world.organisations[DROPPING], Privacy(gpc="drop", dnt="drop"))
    catalog.add_member(world.organisations[TAKING], user)
    engine.dispose()
    return flows


def planted_event(flow: Flow, **fields: Any) -> dict[str, Any]:
    return {
        "eventType": "custom",
        "name": KEPT["name"],
        "flowId": flow.flow_id,
        "sessionId": KEPT["session"],
        "userId": SECRETS["a user id"],
        "url": f"https://app.example.org{KEPT['page']}?token={SECRETS['a token in a query']}#{SECRETS['a fragment']}",
        SECRETS["an unknown field"]: SECRETS["an unknown field"],
        **fields,
    }


def headers_of_a_page() -> dict[str, str]:
    return {
        "Origin": f"https://{KEPT['host']}",
        "Referer": f"https://{KEPT['host']}/?t={SECRETS['the query of a referer']}",
        "Cookie": f"session={SECRETS['a cookie']}",
        "User-Agent": f"Mozilla/5.0 {SECRETS['a user agent']}",
        "X-Forwarded-For": f"{CLIENT}, {SECRETS['an IPv6 address']}",
        "Forwarded": f"for={CLIENT}",
        "X-Real-IP": CLIENT,
    }


class Pages:
    """What browsers send, planted. Every answer is kept to be searched too."""

    def __init__(self, world: World, flows: list[Flow], edge: Process, kept: Kept) -> None:
        self._world = world
        self._flows = flows
        self._base = edge.base
        self._kept = kept
        self.statuses: list[int] = []

    def send(self) -> None:
        with httpx.Client(base_url=self._base, headers=headers_of_a_page(), timeout=30) as client:
            self._client = client
            self._events()
            self._private()
            self._refused()
            self._small()
            self._strangers()

    def _ask(self, method: str, path: str, key: int | None = TAKING, **given: Any) -> None:
        headers = given.pop("headers", {}) | (bearer(self._world.keys[key]) if key is not None else {})
        answer = self._client.request(method, path, headers=headers, **given)
        self.statuses.append(answer.status_code)
        self._kept.add("the answers of the edge", answer.content + str(answer.headers).encode())

    def _events(self) -> None:
        flow = self._flows[TAKING]
        events = [planted_event(flow), planted_event(flow, userId=EMAIL), planted_event(flow, eventType="view")]
        body = orjson.dumps({"events": events})
        self._ask("POST", EVENTS, content=body)
        self._ask("POST", EVENTS, content=gzip.compress(body), headers={"Content-Encoding": "gzip"})
        self._ask("POST", f"{EVENTS}?key={self._world.keys[TAKING]}", None, content=body)
        self._ask("POST", f"{EVENTS}?key={self._world.keys[TAKING]}", None, data={"data": body.decode()})
        self._ask("POST", EVENTS, json={"events": [planted_event(flow, flowId=str(uuid.uuid4()))]})  # of no flow

    def _private(self) -> None:
        private = {"userId": SECRETS["who asked for privacy"], "anonymousId": SECRETS["who asked for privacy"]}
        self._ask(
            "POST", EVENTS, json={"events": [planted_event(self._flows[TAKING], **private)]}, headers={"DNT": "1"}
        )
        dropped = dict.fromkeys(("userId", "anonymousId", "sessionId", "name"), SECRETS["what was dropped"])
        for kind in ("custom", "planted"):  # the second is refused
            event = planted_event(self._flows[DROPPING], **dropped, eventType=kind)
            self._ask("POST", EVENTS, DROPPING, json={"events": [event]}, headers={"Sec-GPC": "1"})

    def _refused(self) -> None:
        bad = planted_event(self._flows[TAKING], eventType="click", data=SECRETS["properties of a refused event"])
        self._ask("POST", EVENTS, json={"events": [bad, bad | {"userId": EMAIL}], "userId": EMAIL, "url": bad["url"]})
        self._ask("POST", EVENTS, json=bad | {"name": bad["url"]})
        unparsable = SECRETS["a body that is no JSON"]
        self._ask("POST", EVENTS, content=f'{{"events": [{{"userId": "{unparsable}"'.encode())
        self._ask("POST", EVENTS, content=unparsable.encode(), headers={"Content-Encoding": "gzip"})
        self._ask("POST", EVENTS, content=unparsable.encode(), headers={"Content-Type": "image/png"})
        self._ask("POST", EVENTS, data={"data": unparsable, "other": unparsable})
        self._ask("POST", EVENTS, content=unparsable.encode() * (MAX_BODY_BYTES // len(unparsable) + 1))

    def _small(self) -> None:
        flow = self._flows[TAKING]
        [step] = [step.step_id for step in flow.steps]
        who = {"userId": SECRETS["a user id"], "url": planted_event(flow)["url"]}
        self._ask("GET", HEARTBEAT)
        self._ask("POST", f"{HEARTBEAT}?key={self._world.keys[TAKING]}", None, content=SECRETS["a user id"])
        self._ask("GET", "/api/v1/flows")
        self._ask("POST", f"/api/v1/flows/{flow.flow_id}/complete", json=who | {"sessionId": KEPT["session"]})
        self._ask("POST", f"/api/v1/flows/{flow.flow_id}/checklist-progress", json=who | {"stepId": step})
        self._ask("POST", f"/api/v1/flows/{flow.flow_id}/checklist-progress", json=who | {"stepId": "planted"})
        self._ask("GET", f"/api/v1/flows/{flow.flow_id}/checklist-progress", params={"userId": who["userId"]})
        self._ask("POST", f"/api/v1/steps/{step}/fingerprint", json=who | {"fingerprint": {"tag": "button"}})
        self._ask("POST", f"/api/v1/steps/{step}/fingerprint", json=who | {"fingerprint": who["url"]})
        self._ask("POST", f"/api/v1/steps/{step}/health", json=who | {"found": True})
        self._ask("POST", f"/api/v1/steps/{step}/health", json=who)
        self._ask("GET", "/api/v1/snippet-status")

    def _strangers(self) -> None:
        unknown = SECRETS["an unknown key"]
        self._ask("POST", f"{EVENTS}?key={unknown}", None, json={"events": [planted_event(self._flows[TAKING])]})
        self._ask("POST", EVENTS, None, headers=bearer(unknown), content=SECRETS["a user id"])
        self._ask("GET", f"/api/v1/{SECRETS['a token in a query']}?t={SECRETS['a token in a query']}", None)


@pytest.mark.timeout(300)
def test_no_secret_of_a_browser_is_kept_said_or_shown(world: World, tmp_path: Path) -> None:
    user = str(uuid.uuid4())
    flows = furnish(world, user)
    token = session_token(JWT_SECRET, None, user)
    settings = world.environment() | {"user_hash_secret": HASH_SECRET, "jwt_secret": JWT_SECRET}
    kept = Kept()
    with (
        role("edge", settings, tmp_path) as edge,
        role("reader", settings, tmp_path) as reader,
        role("worker", settings, tmp_path) as worker,
    ):
        pages = Pages(world, flows, edge, kept)
        pages.send()
        assert {200, 202, 400, 401, 404, 413, 415} <= set(pages.statuses)
        assert 500 not in pages.statuses
        read_everything_counted(world, len(lines_of(world)))
        analytics(kept, reader, flows[TAKING], token)
        for process in (edge, reader, worker):
            kept.add("the metrics", httpx.get(f"{process.admin}/metrics").content)
            kept.add("the readiness", httpx.get(f"{process.admin}/readyz").content)
        for process in (edge, reader, worker):
            assert process.terminate() == 0
            kept.add(f"the log of the {process.log.name.partition('-')[0]}", process.log.read_bytes())
    read_log_and_store(world, kept)
    if world.settings.limits_url:
        read_redis(str(world.settings.limits_url), kept)
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.suffix in (".db", ".db-wal"):
            kept.add(f"the file {file.name}", file.read_bytes())

    assert_the_search_finds_what_is_kept(world, kept)
    secrets = SECRETS | {f"key {n}": key for n, key in enumerate(world.keys)} | {"the session token": token}
    secrets |= {"the session token's signature": token.rpartition(".")[2]}
    found = {name: places for name, secret in secrets.items() if (places := kept.where(secret))}
    assert found == {}


def assert_the_search_finds_what_is_kept(world: World, kept: Kept) -> None:
    """Else it would pass with nothing to search."""
    topics, store = world.topics, "the table "
    events, refused = f"the topic {topics.events}", f"the topic {topics.refused}"
    assert {events, refused, f"{store}custom_events", f"{store}rejected"} <= set(kept.where(KEPT["name"]))
    assert {events, refused} <= set(kept.where(KEPT["session"]))
    assert {events, refused} <= set(kept.where(KEPT["page"]))
    assert {f"the topic {topics.heartbeats}", f"{store}heartbeats"} <= set(kept.where(KEPT["host"]))
    assert kept.where(key_digest(world.keys[TAKING])), "the known exception"
    assert {f"the log of the {name}" for name in ("edge", "worker", "reader")} <= set(kept.places)
    assert kept.where("zenstep_refusals_total") == ["the metrics"]


def lines_of(world: World) -> list[bytes]:
    values = [record.value for topic in world.topics.all() for record in read_records(world, topic)]
    return [line for value in values for line in value.split(b"\n") if line.strip()]


def read_everything_counted(world: World, least: int) -> None:
    engine = open_engine(world.settings.store_url)
    expected = {"refused:invalid", "refused:media_type", "refused:too_large", "unknown_flow"}

    def counted() -> bool:
        ledger = Counting(engine).ledger()
        return ledger.get("consumed", 0) >= least and {f"rejected:{reason}" for reason in expected} <= set(ledger)

    until(counted)
    engine.dispose()


def analytics(kept: Kept, reader: Process, flow: Flow, token: str) -> None:
    for path in ("analytics", "analytics/export.csv"):
        for given in (bearer(token), bearer(token[:-1]), {}):
            answer = httpx.get(
                f"{reader.base}/api/v1/flows/{flow.flow_id}/{path}", headers=headers_of_a_page() | given, timeout=30
            )
            assert answer.status_code in (200, 401)
            kept.add("the answers of the reader", answer.content + str(answer.headers).encode())


def read_log_and_store(world: World, kept: Kept) -> None:
    for topic in world.topics.all():
        for record in read_records(world, topic):
            kept.add(f"the topic {topic}", record.value)
    engine = open_engine(world.settings.store_url)
    with closing(engine.connect()) as connection:
        for table in tables.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                for value in row:
                    kept.add(f"the table {table.name}", value if isinstance(value, bytes) else str(value).encode())
    engine.dispose()


def read_redis(url: str, kept: Kept) -> None:
    with redis.Redis.from_url(url) as client:
        keys: list[bytes] = list(client.scan_iter())
        assert keys, "the limits are counted there"
        for key in keys:
            dumped = client.dump(key)
            assert isinstance(dumped, bytes)
            kept.add("the limits in Redis", key + b"\n" + dumped)
