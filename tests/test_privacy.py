"""Browsers that ask for privacy, and bots: what of theirs reaches the log, by each organisation's own choice."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import orjson
import pytest
from prometheus_client import REGISTRY

from backends.store.engine import open_engine
from ingest import bots
from ingest.privacy import treatment
from schemas import records
from schemas.privacy import Privacy, Treatment
from tests.edges import (
    HEARTBEAT,
    Running,
    accepted,
    bearer,
    edge,
    make_world,
    read_envelopes,
    read_heartbeats,
    read_records,
    view,
)
from tests.worlds import NOW, Partitions, analytics, apply, chosen_range, envelope, event, make_flows, modelled

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.1 Mobile/15E148 Safari/604.1"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
HEADLESS = CHROME.replace("Chrome/", "HeadlessChrome/")
ASKING = {"gpc": {"Sec-GPC": "1"}, "dnt": {"DNT": "1"}, "both": {"Sec-GPC": "1", "DNT": "1"}}
WHO = {"userId": "ann@example.org", "anonymousId": "a-1"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    world = make_world(f"sqlite:///{tmp_path}/log.db", f"sqlite:///{tmp_path}/store.db")
    with edge(world) as client:
        yield Running(world, client)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def choose(running: Running, gpc: Treatment, dnt: Treatment) -> None:
    running.world.catalog().set_privacy(running.world.organisations[0], Privacy(gpc, dnt))


@pytest.mark.parametrize("asking", ASKING)
def test_by_default_who_asks_for_privacy_is_kept_without_ids(running: Running, asking: str) -> None:
    accepted(running.post({"events": [view(**WHO), view(**WHO)]}, headers=ASKING[asking]), 2)
    accepted(running.post({"events": [view(**WHO)]}), 1)
    private, public = read_envelopes(running.world)
    assert [(e.user, e.anon, e.session) for e in private.events] == [(None, None, "s-1")] * 2
    assert (public.events[0].anon, public.events[0].session) == ("a-1", "s-1") and public.events[0].user


@pytest.mark.parametrize(
    ("gpc", "dnt", "asking", "signal"),
    [
        ("drop", "anonymous", "gpc", "gpc"),
        ("drop", "anonymous", "dnt", None),
        ("drop", "anonymous", "both", "gpc"),
        ("anonymous", "drop", "gpc", None),
        ("anonymous", "drop", "dnt", "dnt"),
        ("anonymous", "drop", "both", "dnt"),
        ("drop", "drop", "both", "gpc"),
    ],
)
def test_an_organisation_that_drops_takes_nothing_and_says_so(
    running: Running, gpc: Treatment, dnt: Treatment, asking: str, signal: str | None
) -> None:
    choose(running, gpc, dnt)
    before = {name: metric("zenstep_events_withheld_total", signal=name) for name in ("gpc", "dnt")}
    accepted(running.post({"events": [view(**WHO)] * 3}, headers=ASKING[asking]), 0 if signal else 3)
    after = {name: metric("zenstep_events_withheld_total", signal=name) for name in ("gpc", "dnt")}
    assert {name: after[name] - before[name] for name in after} == {n: 3 if n == signal else 0 for n in after}
    found = read_envelopes(running.world)
    assert [e.user for envelope in found for e in envelope.events] == ([] if signal else [None] * 3)


def test_the_choice_is_one_organisations_alone(running: Running) -> None:
    choose(running, "drop", "drop")
    accepted(running.post({"events": [view(**WHO)]}, 1, ASKING["both"]), 1)
    [kept] = read_envelopes(running.world)
    assert (kept.org, kept.events[0].user) == (running.world.organisations[1], None)


def test_a_body_is_refused_for_its_faults_whatever_its_browser_asks_for(running: Running) -> None:
    choose(running, "drop", "drop")
    assert running.post({"events": []}, headers=ASKING["both"]).status_code == 400


@pytest.mark.parametrize("value", ["0", "", "true", "2", "11", "1, 1", "null"])
def test_any_value_but_one_asks_for_nothing(running: Running, value: str) -> None:
    choose(running, "drop", "drop")
    accepted(running.post({"events": [view(**WHO)]}, headers={"Sec-GPC": value, "DNT": value}), 1)
    [kept] = read_envelopes(running.world)
    assert kept.events[0].user is not None


def test_two_headers_that_disagree_ask_for_privacy() -> None:
    """What stands between may have added one."""
    headers = [(b"dnt", b"0"), (b"dnt", b"1")]
    assert treatment(headers, Privacy(), 0) == "anonymous"


def test_a_heartbeat_tells_of_the_page_and_of_nobody_so_it_is_taken(running: Running) -> None:
    choose(running, "drop", "drop")
    asking = bearer(running.world.keys[0]) | ASKING["both"] | {"Origin": "https://app.example.org"}
    assert running.client.get(HEARTBEAT, headers=asking).status_code == 200
    [beat] = read_heartbeats(running.world)
    assert beat.host == "app.example.org"
    assert set(orjson.loads(records.encode(beat))) == {"kind", "v", "org", "received", "env", "id", "host"}


@pytest.mark.parametrize("agent", [GOOGLEBOT, HEADLESS, "curl/8.5.0", "Mozilla/5.0 (compatible; GPTBot/1.1)"])
def test_what_a_known_bot_sends_is_marked_and_taken(running: Running, agent: str) -> None:
    before = metric("zenstep_events_bot_total")
    accepted(running.post({"events": [view(), view()]}, headers={"User-Agent": agent}), 2)
    [marked] = read_envelopes(running.world)
    assert marked.bot and len(marked.events) == 2
    assert metric("zenstep_events_bot_total") == before + 2


@pytest.mark.parametrize("agent", [CHROME, FIREFOX, SAFARI, "", "x" * 5000])
def test_what_a_browser_sends_is_not_marked(running: Running, agent: str) -> None:
    before = metric("zenstep_events_bot_total")
    accepted(running.post({"events": [view()]}, headers={"User-Agent": agent}), 1)
    [unmarked] = read_envelopes(running.world)
    assert not unmarked.bot
    assert b"bot" not in read_records(running.world, running.world.topics.events)[0].value
    assert metric("zenstep_events_bot_total") == before


def test_without_a_user_agent_nobody_is_known_as_a_bot() -> None:
    assert not bots.is_bot([(b"host", b"e")])


def test_a_user_agent_seen_before_is_looked_up_and_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def is_crawler(agent: str) -> bool:
        asked.append(agent)
        return False

    bots._known.cache_clear()
    monkeypatch.setattr(bots, "is_crawler", is_crawler)
    for n in [*range(20_000), 19_999, 19_999]:
        assert not bots.is_bot([(b"user-agent", b"%d" % n + b"x" * 5000)])
    assert len(asked) == 20_000
    assert max(len(agent) for agent in asked) == bots.MAX_LENGTH
    assert bots._known.cache_info().currsize == 10_000
    bots._known.cache_clear()


def test_marked_events_are_counted_like_any_other(store_url: str) -> None:
    engine = open_engine(store_url)
    organisation, [flow] = make_flows(engine, [0])
    seen = envelope(organisation, event(flow=flow.flow_id, session="s"))
    apply(engine, Partitions().record(msgspec.structs.replace(seen, bot=True)))
    found = modelled(analytics(engine, flow, chosen_range(NOW - 86_400_000, NOW + 86_400_000)))
    assert found["totals"]["views"] == found["totals"]["starts"] == 1
    engine.dispose()


def test_an_envelope_of_an_earlier_release_has_no_mark() -> None:
    seen = envelope("7b9f1e4e-41d5-4d44-8c7a-6f6e6e1b2a33", event(flow="7b9f1e4e-41d5-4d44-8c7a-6f6e6e1b2a33"))
    line = records.encode(seen)
    assert b'"bot"' not in line
    read = records.decode(line)
    assert isinstance(read, records.Envelope) and not read.bot
