"""What migrations make of what is there: a store of a release before, filled and brought to this one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from backends.store.engine import open_engine
from backends.store.migrate import MIGRATIONS, migrate
from schemas import tables as t
from schemas.sketches import add_seconds, add_users, count_users, median

ORGANISATION, FLOW, STEP, OTHER = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in "1234")
CELL = {"organisation_id": ORGANISATION, "flow_id": FLOW, "grain": t.QUARTER, "bucket": 900}
COHORT_STEPS = sa.table("cohort_steps", *map(sa.column, [*CELL, "step_id", "sessions", "dropped"]))
SKETCHES = sa.table("sketches", *map(sa.column, [*CELL, "kind", "subject", "sketch"]))


@pytest.fixture(params=["sqlite", "postgres"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """With the tables that were there before sketches stood in cells."""
    if request.param == "postgres":
        engine = open_engine(request.getfixturevalue("postgres_url"))
        with engine.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    else:
        engine = open_engine(f"sqlite:///{tmp_path}/store.db")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        connection.commit()
    yield engine
    engine.dispose()


def test_cells_keep_their_numbers_users_and_times_when_sketches_move_into_them(before: sa.Engine) -> None:
    users = {name: add_users(None, [f"u:{name}", "u:both"]) for name in ("step", "flow", "custom")}
    rows = [
        (t.counts, CELL | {"step_id": STEP, "views": 3, "completions": 2, "skips": 1, "dismissals": 0}),
        (t.custom_events, CELL | {"name": "invited", "events": 4}),
        (t.custom_events, CELL | {"name": "nobody's", "events": 1}),
        (t.cohorts, CELL | {"sessions": 5, "starts": 4, "completed": 3, "dismissed": 2}),
        (COHORT_STEPS, CELL | {"step_id": STEP, "sessions": 4, "dropped": 1}),
        (COHORT_STEPS, CELL | {"step_id": OTHER, "sessions": 2, "dropped": 2}),  # started before it was seen
        (SKETCHES, CELL | {"kind": "users", "subject": STEP, "sketch": users["step"]}),
        (SKETCHES, CELL | {"kind": "users", "subject": "", "sketch": users["flow"]}),  # no event of the flow's own
        (SKETCHES, CELL | {"kind": "custom", "subject": "invited", "sketch": users["custom"]}),
        (SKETCHES, CELL | {"kind": "seconds", "subject": "", "sketch": add_seconds(None, [1.0, 5.0, 9.0])}),
    ]
    with before.begin() as connection:
        for table, row in rows:
            connection.execute(sa.insert(table).values(row))
    migrate(before)
    with before.begin() as connection:
        found = {table: connection.execute(sa.select(table)).mappings().all() for table in t.CELLS}
        left = set(sa.inspect(connection).get_table_names())
    counts = {row["step_id"]: row for row in found[t.counts]}
    assert {step: [row[name] for name in ("views", "sessions", "dropped")] for step, row in counts.items()} == {
        STEP: [3, 4, 1],
        OTHER: [0, 2, 2],
        "": [0, 0, 0],
    }
    assert (counts[STEP]["users"], counts[""]["users"], counts[OTHER]["users"]) == (users["step"], users["flow"], None)
    custom = {row["name"]: (row["events"], row["users"]) for row in found[t.custom_events]}
    assert custom == {"invited": (4, users["custom"]), "nobody's": (1, None)}
    [cohort] = found[t.cohorts]
    assert (cohort["sessions"], cohort["dismissed"], median([cohort["seconds"]])) == (5, 2, 5.0)
    assert count_users([users["step"], users["flow"]]) == 3
    assert not left & {"cohort_steps", "sketches"}
