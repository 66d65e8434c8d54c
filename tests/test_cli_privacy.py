"""`zenstep org privacy`: what it shows, what it changes, what it refuses."""

import uuid
from pathlib import Path

import pytest

from backends.store.catalog import Catalog
from backends.store.engine import open_engine
from schemas.ids import key_digest
from schemas.privacy import Privacy
from tests.commands import Zenstep


@pytest.fixture
def zenstep(store_url: str, tmp_path: Path) -> Zenstep:
    return Zenstep(store_url, tmp_path)


def test_without_a_choice_everybody_who_asks_is_kept_without_ids(zenstep: Zenstep) -> None:
    organisation = zenstep.organisation()
    assert zenstep("org", "privacy", organisation) == "Sec-GPC: anonymous\nDNT: anonymous\n"
    assert zenstep.json("org", "privacy", organisation) == {"gpc": "anonymous", "dnt": "anonymous"}


def test_one_signal_is_changed_without_the_other(zenstep: Zenstep) -> None:
    organisation, other = zenstep.organisation(), zenstep.organisation("Birch")
    assert zenstep("org", "privacy", organisation, "--gpc", "drop") == "Sec-GPC: drop\nDNT: anonymous\n"
    assert zenstep("org", "privacy", organisation, "--dnt", "drop") == "Sec-GPC: drop\nDNT: drop\n"
    assert zenstep("org", "privacy", organisation, "--gpc", "anonymous") == "Sec-GPC: anonymous\nDNT: drop\n"
    assert zenstep.json("org", "privacy", organisation) == {"gpc": "anonymous", "dnt": "drop"}
    assert zenstep.json("org", "privacy", other) == {"gpc": "anonymous", "dnt": "anonymous"}


def test_the_edge_finds_the_choice_with_the_key(zenstep: Zenstep, store_url: str) -> None:
    organisation = zenstep.organisation()
    key = zenstep.json("key", "create", "--org", organisation)["key"]
    zenstep("org", "privacy", organisation, "--gpc", "drop")
    engine = open_engine(store_url)
    found = Catalog(engine).find_key(key_digest(key))
    assert found is not None and found.privacy == Privacy(gpc="drop", dnt="anonymous")
    engine.dispose()


def test_a_mistake_is_one_line_and_changes_nothing(zenstep: Zenstep) -> None:
    organisation, nobody = zenstep.organisation(), str(uuid.uuid4())
    assert nobody in zenstep.refuses("org", "privacy", nobody)
    assert nobody in zenstep.refuses("org", "privacy", nobody, "--gpc", "drop")
    assert "'keep' is not one of" in zenstep.refuses("org", "privacy", organisation, "--dnt", "keep")
    assert "'acorn' is not a UUID" in zenstep.refuses("org", "privacy", "acorn")
    assert zenstep.json("org", "privacy", organisation) == {"gpc": "anonymous", "dnt": "anonymous"}
