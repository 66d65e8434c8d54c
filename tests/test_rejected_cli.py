"""`zenstep rejected`: what was set aside is looked at, and replayed without anything being counted twice."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from backends.store.rejected import RejectedRows, Wanted
from cli.long import STOPPED, LongRun
from schemas import records
from schemas import tables as t
from schemas.ids import NIL, partition_of
from schemas.records import Refused
from tests.edges import PARTITIONS
from tests.installed import Installed, received
from tests.working import until
from tests.worlds import NOW, envelope, event, new_id

HASH = "5" * 64


def of_later(here: Installed, number: int = 1) -> list[bytes]:
    """Envelopes that a worker sets aside until `here.later` is published."""
    views = [event(flow=here.later.flow_id, session=f"s{n}", user=HASH) for n in range(number)]
    return [records.encode(envelope(here.organisation, view)) for view in views]


def set_aside(here: Installed) -> None:
    """A row of each kind, and one event that counts."""
    refused = Refused(v=1, org=here.other, received=NOW, route="events", reason="invalid")
    here.put(*of_later(here, 3), envelope(here.organisation, event(flow=here.flow.flow_id)))
    old = event(flow=here.flow.flow_id, time=received(days_ago=9))
    here.put(envelope(here.organisation, old, received=received(days_ago=1)), b"\x1b[31mno line\x9b of ours")
    here.put(refused, topic=here.world.topics.refused)
    here.count()


def reasons(here: Installed) -> dict[str, int]:
    return {found.reason: found.rows for found in RejectedRows(here.engine).sums(Wanted())}


def marked(here: Installed) -> int:
    return sum(row["replayed_at"] is not None for row in here.rows(t.rejected))


# Looking


def test_what_was_set_aside_is_listed_without_bodies(here: Installed) -> None:
    assert here("rejected", "list") == "Nothing was set aside.\n"
    set_aside(here)
    lines = here("rejected", "list").splitlines()
    assert len(lines) == 6
    assert HASH not in "".join(lines) and "no line" not in "".join(lines)
    rows = here.json("rejected", "list")["rejected"]
    assert sorted({row["reason"] for row in rows}) == ["refused:invalid", "too_old", "unknown_flow", "unreadable"]
    assert all("body" not in row and row["size"] > 0 and row["replayed_at"] is None for row in rows)
    assert sorted(lines) == sorted(line for line in lines if any(row["place"] in line for row in rows))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--reason", "unknown_flow"], {"unknown_flow": 3}),
        (["--reason", "refused", "--reason", "too_old"], {"refused:invalid": 1, "too_old": 1}),
        (["--reason", "unknown"], {}),
        (["--org", "OTHER"], {"refused:invalid": 1}),
        (["--until", "2026-03-30"], {"too_old": 1}),
        (["--org", NIL], {"unreadable": 1}),
        (
            ["--since", "2026-03-30T14:00:00+02:00", "--until", "2026-03-30T12:00:01Z"],
            {"refused:invalid": 1, "unknown_flow": 3},
        ),
    ],
)
def test_rows_are_chosen_by_reason_organisation_and_time(
    local: Installed, options: list[str], expected: dict[str, int]
) -> None:
    set_aside(local)
    options = [local.other if option == "OTHER" else option for option in options]
    sums = local.json("rejected", "list", "--sums", *options)["reasons"]
    assert {row["reason"]: row["rows"] for row in sums} == expected
    assert len(local.json("rejected", "list", *options)["rejected"]) == sum(expected.values())
    assert len(local.json("rejected", "list", "--limit", "1", *options)["rejected"]) == min(1, sum(expected.values()))


@pytest.mark.parametrize("at", ["yesterday", "2026-03-30T12:00:00", "1774785600000"])
def test_a_time_that_is_none_or_of_no_zone_is_refused(local: Installed, at: str) -> None:
    assert at in local.refuses("rejected", "list", "--since", at)


def test_sums_are_by_reason_and_say_what_was_replayed(local: Installed) -> None:
    set_aside(local)
    local("rejected", "replay", "--reason", "unknown_flow", "--limit", "1")
    lines = local("rejected", "list", "--sums").splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["1", "refused:invalid"],
        ["1", "too_old"],
        ["3", "unknown_flow"],
        ["1", "unreadable"],
    ]
    assert lines[2].endswith("2026-03-30T12:00:00Z to 2026-03-30T12:00:00Z  1 replayed")


def test_one_row_is_shown_with_its_body(here: Installed) -> None:
    set_aside(here)
    [row, *_] = here.json("rejected", "list", "--reason", "unknown_flow")["rejected"]
    text = here("rejected", "show", row["place"])
    assert text.startswith(f"{row['place']}\norganisation  {here.organisation}\nreason        unknown_flow\n")
    body = json.loads(text.partition("\n\n")[2])
    assert body["org"] == here.organisation and body["events"][0]["user"] == HASH
    assert '\n  "org": ' in text
    [shown] = here.json("rejected", "show", row["place"])["rejected"]
    assert shown == row | {"body": body}


def test_bytes_that_are_no_line_cannot_command_the_terminal(local: Installed) -> None:
    set_aside(local)
    [row] = local.json("rejected", "list", "--reason", "unreadable")["rejected"]
    assert local("rejected", "show", row["place"]).endswith("\n\n\\x1b[31mno line\\x9b of ours\n")
    [shown] = local.json("rejected", "show", row["place"])["rejected"]
    assert shown["body"] == "\x1b[31mno line\\x9b of ours"


def test_a_place_where_nothing_is_and_one_that_is_none(local: Installed) -> None:
    assert local.refuses("rejected", "show", "t/0/1/2/-1") == "nothing was set aside at t/0/1/2/-1"
    assert "is not a place" in local.refuses("rejected", "show", "t/0/1")


# Replaying


def test_a_flow_that_was_published_late_gets_its_events_counted_once(here: Installed) -> None:
    set_aside(here)
    before = here.ledger()
    here.publish(here.later)
    left = [
        {"reason": "refused:invalid", "rows": 1, "why": "the edge refused it, and only a part of it is kept"},
        {"reason": "unreadable", "rows": 1, "why": "no worker can read it"},
    ]
    dry = here.json("rejected", "replay", "--dry-run")
    assert dry["would_replay"] == {"unknown_flow": 3}
    assert [one for one in dry["left_out"] if one["reason"] != "too_old"] == left
    assert (marked(here), len(here.lines())) == (0, 6), "a dry run does nothing"

    done = here.json("rejected", "replay")
    assert (done["replayed"], done["stopped"]) == ({"unknown_flow": 3}, False)
    assert (marked(here), len(here.lines())) == (3, 9)
    assert here.count() == before | {"consumed": before["consumed"] + 3, "counted": before["counted"] + 3}
    assert here.json("rejected", "replay")["replayed"] == {}
    assert len(here.lines()) == 9, "what was replayed is left alone"
    assert here.json("rejected", "replay", "--dry-run")["would_replay"] == {}

    assert here.json("rejected", "replay", "--again")["replayed"] == {"unknown_flow": 3}
    after = here.count()
    assert after["counted"] == before["counted"] + 3
    assert after["duplicate"] == 3


def test_a_line_goes_to_the_partition_of_its_organisation(here: Installed) -> None:
    [line] = of_later(here)
    own = partition_of(here.organisation, PARTITIONS)
    here.put(line, organisation=next(name for name in map(str, range(50)) if partition_of(name, PARTITIONS) != own))
    here.count()
    here("rejected", "replay")
    assert [record.partition for record in here.records()].count(own) == 1
    assert here.lines() == [line, line]


def test_what_is_set_aside_again_is_a_new_row_and_does_not_keep_the_replay_from_the_next(here: Installed) -> None:
    for organisation in here.world.organisations:
        here.put(*(envelope(organisation, event(flow=new_id())) for _ in range(5)), organisation=organisation)
    here.count()
    with here.worker():
        assert here.json("rejected", "replay", "--rate", "5")["replayed"] == {"unknown_flow": 10}
        until(here.settled)
    assert reasons(here) == {"unknown_flow": 20}
    assert marked(here) == 10
    bodies = sorted(here.lines())
    assert bodies[::2] == bodies[1::2], "each was put in again once"


def test_what_is_too_old_is_replayed_only_where_it_is_named(local: Installed) -> None:
    set_aside(local)
    plan = local("rejected", "replay", "--dry-run")
    assert "left out: judged by when the edge received it" in plan
    said = local("rejected", "replay", "--reason", "too_old")
    assert "too_old is judged by when the edge received it: those are set aside again." in said
    local.count()
    assert reasons(local)["too_old"] == 2


def test_only_so_many_and_only_those_asked_for(local: Installed) -> None:
    set_aside(local)
    local.put(envelope(local.other, event(flow=new_id())), organisation=local.other)
    local.count()
    assert local.json("rejected", "replay", "--org", local.other)["replayed"] == {"unknown_flow": 1}
    assert local.json("rejected", "replay", "--limit", "2")["replayed"] == {"unknown_flow": 2}
    assert local.json("rejected", "replay", "--reason", "poison")["replayed"] == {}
    assert local.json("rejected", "replay", "--limit", "2")["replayed"] == {"unknown_flow": 1}


def test_many_rows_are_replayed_in_pages(local: Installed) -> None:
    local.put(*of_later(local, 250))
    local.publish(local.later)
    with local.engine.begin() as connection:  # as if the flow had been published after the worker looked
        connection.execute(t.flows.delete().where(t.flows.c.flow_id == local.later.flow_id))
    local.count()
    local.publish(local.later)
    assert local.json("rejected", "replay")["replayed"] == {"unknown_flow": 250}
    assert local.count()["counted"] == 250


def test_a_line_that_its_topic_does_not_take_is_named_and_the_others_are_replayed(local: Installed) -> None:
    local.put(*of_later(local, 2))
    local.count()
    with local.engine.begin() as connection:
        first = sa.select(sa.func.min(t.rejected.c.record_offset)).scalar_subquery()
        connection.execute(t.rejected.update().where(t.rejected.c.record_offset == first).values(body=b"x" * 2**21))
    done = local.json("rejected", "replay")
    assert (done["replayed"], done["too_large"]) == ({"unknown_flow": 1}, {"unknown_flow": 1})
    assert marked(local) == 1


def test_a_topic_that_is_gone_is_said(local: Installed) -> None:
    local.put(*of_later(local))
    local.count()
    with local.engine.begin() as connection:
        connection.execute(t.rejected.update().values(topic="gone"))
    assert local.refuses("rejected", "replay") == "there is no topic gone: run zenstep topics create"
    assert marked(local) == 0


# Killed, interrupted, twice at once


@contextmanager
def unwritable(here: Installed) -> Iterator[None]:
    """While the block runs, rows can be read and not marked."""
    with here.engine.begin() as connection:
        if here.engine.dialect.name == "postgresql":
            connection.execute(sa.text("LOCK TABLE rejected IN SHARE MODE"))
        yield


def test_killed_between_acknowledgement_and_mark_it_replays_again_and_nothing_counts_twice(here: Installed) -> None:
    here.put(*of_later(here, 3))
    here.count()
    here.publish(here.later)
    with unwritable(here):
        replaying = here.start("rejected", "replay")
        until(lambda: len(here.lines()) == 6)
        replaying.kill()
        replaying.communicate()
    assert marked(here) == 0
    assert here.json("rejected", "replay")["replayed"] == {"unknown_flow": 3}
    ledger = here.count()
    assert (ledger["counted"], ledger["duplicate"]) == (3, 3)
    assert marked(here) == 3


def test_two_replays_at_the_same_time_count_nothing_twice(here: Installed) -> None:
    here.put(*of_later(here, 40))
    here.count()
    here.publish(here.later)
    with here.worker():
        both = [here.start("rejected", "replay", "--rate", "20") for _ in range(2)]
        for one in both:
            out, err = one.communicate(timeout=120)
            assert one.returncode == 0, (out, err)
        until(here.settled)
    ledger = here.ledger()
    assert ledger["counted"] == 40
    assert 80 <= len(here.lines()) <= 120
    assert ledger.get("duplicate", 0) == len(here.lines()) - 80
    assert marked(here) == 40


def test_interrupted_it_ends_in_order_and_goes_on_the_next_time(here: Installed) -> None:
    here.put(*of_later(here, 20))
    here.count()
    here.publish(here.later)
    replaying = here.start("rejected", "replay", "--rate", "4", "--json")
    until(lambda: marked(here))
    replaying.send_signal(signal.SIGINT)
    out, err = replaying.communicate(timeout=60)
    assert (replaying.returncode, err) == (STOPPED, "")
    done = json.loads(out)
    assert done["stopped"] is True
    first = done["replayed"]["unknown_flow"]
    assert 0 < first == marked(here) == len(here.lines()) - 20 < 20
    assert here.json("rejected", "replay")["replayed"] == {"unknown_flow": 20 - first}
    ledger = here.count()
    assert (ledger["counted"], ledger.get("duplicate", 0)) == (20, 0)


def test_a_log_that_is_away_is_one_line_and_nothing_is_marked(local: Installed, tmp_path: Path) -> None:
    local.put(*of_later(local))
    local.count()
    file = tmp_path / "a file"
    file.touch()
    settings: dict[str, Any] = {"log_url": f"sqlite:///{file}/log.db"}
    local.world = local.world._replace(settings=replace(local.world.settings, **settings))
    assert local.refuses("rejected", "replay").startswith("the log does not answer: ")
    assert marked(local) == 0


def test_a_rate_is_kept_over_the_whole_run() -> None:
    started = time.monotonic()
    with LongRun("x", None, rate=100.0) as run:
        assert (run.most(1000), run.most(10)) == (100, 10)
        for _ in range(5):
            run.done(10)
    assert time.monotonic() - started >= 0.5
    assert LongRun("x", None, rate=0.2).most(1000) == 1
