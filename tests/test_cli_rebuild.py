"""`zenstep rebuild` as an operator types it."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backends.log import TopicPartition, open_admin
from backends.log.sqlite import SqliteLogAdmin
from schemas.ids import partition_of
from tests.commands import Zenstep
from tests.rebuilding import PARTITIONS, Traffic


@pytest.fixture
def traffic(store_url: str, tmp_path: Path) -> Iterator[Traffic]:
    made = Traffic(store_url, f"sqlite:///{tmp_path}/log.db")
    made.send(20)
    made.count()
    yield made
    made.close()


@pytest.fixture
def zenstep(traffic: Traffic, tmp_path: Path) -> Zenstep:
    return Zenstep(traffic.store_url, tmp_path)


def test_a_comparison_names_what_differs_and_a_rebuild_mends_it(traffic: Traffic, zenstep: Zenstep) -> None:
    before = traffic.numbers()
    same = zenstep.run("rebuild", "--compare")
    assert same.exit_code == 0, same.output
    assert same.stdout.splitlines()[-1] == "equal"
    assert "DIFFERS" not in same.stdout
    traffic.execute("UPDATE counts SET views = views + 1")
    differs = zenstep.run("rebuild", "--dry-run", "--json")
    assert differs.exit_code == 1
    document = json.loads(differs.stdout)
    assert not document["equal"]
    [counts] = [table for table in document["tables"] if not table["equal"]]
    rows = len(before["counts"])
    assert (counts["table"], counts["only"]) == ("counts", {"live": rows, "rebuilt": rows})
    assert counts["sums"]["views"]["live"] - counts["sums"]["views"]["rebuilt"] == rows
    assert counts["sums"]["skips"]["live"] == counts["sums"]["skips"]["rebuilt"]
    text = zenstep.run("rebuild", "--compare")
    assert (text.exit_code, text.stdout.splitlines()[-1]) == (1, "THE NUMBERS DIFFER")
    assert "Going on with the rebuild that was begun." in text.stderr
    done = zenstep.run("rebuild", "--restart")
    assert (done.exit_code, done.stdout) == (
        0,
        f"Rebuilt from 20 records with {traffic.events} events, and in place.\n",
    )
    assert "thrown away: as asked" in done.stderr
    assert traffic.numbers() == before
    assert "adds up" in zenstep("ledger")


def test_a_rebuild_without_anything_counted_is_one_clear_line(store_url: str, tmp_path: Path) -> None:
    zenstep = Zenstep(store_url, tmp_path)
    assert zenstep.refuses("rebuild") == "nothing has been counted yet: there is nothing to rebuild"
    nowhere = Zenstep(f"sqlite:///{tmp_path}/nothing.db", tmp_path)
    assert nowhere.refuses("rebuild") == "the store has no tables yet: run `zenstep migrate`"


def test_what_the_log_has_lost_is_one_clear_line(traffic: Traffic, zenstep: Zenstep, tmp_path: Path) -> None:
    log = f"{tmp_path}/log.db"
    with closing(SqliteLogAdmin(log)) as admin:
        for partition in range(3):
            admin.delete_before(TopicPartition(traffic.topic, partition), 1)
    line = zenstep.refuses("rebuild")
    first = min(partition_of(flow.organisation, PARTITIONS) for flow in traffic.flows)
    assert line.startswith(f"{traffic.topic}[{first}] begins at offset 1: the log no longer has 0 to 0. ")
    assert "--accept-loss" in line
    assert zenstep.run("rebuild", "--accept-loss").exit_code == 0


def test_a_topic_made_anew_is_known_by_its_identity_though_it_is_as_long(traffic: Traffic, zenstep: Zenstep) -> None:
    with closing(open_admin(traffic.log_url)) as admin:
        identity = admin.identities()[traffic.topic]
    traffic.execute("UPDATE offsets SET identity = 'another'")
    assert f"{traffic.topic}[0] was made anew" in zenstep.refuses("rebuild")
    assert zenstep.run("rebuild", "--accept-loss").exit_code == 0
    assert set(traffic.rows("SELECT identity FROM offsets")) == {(identity,)}
    traffic.send(5)
    traffic.count()
    assert traffic.ledger()["consumed"] == traffic.events
