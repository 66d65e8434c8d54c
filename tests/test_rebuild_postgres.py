"""What hangs on PostgreSQL tables and must come along with a swap, or is a reason to refuse it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from backends.store.days import create_day_partitions
from backends.store.rebuild import RebuildError, open_beside
from tests.rebuilding import Traffic
from workers.rebuild import Interrupted

# Of every table and partition: whose, rights (the owner's own apart), row security, keys and columns.
_SHAPE = """
SELECT c.relname, pg_get_userbyid(c.relowner), c.relrowsecurity, c.relforcerowsecurity, c.relkind,
    (SELECT array_agg(a::text ORDER BY a::text) FROM
        (SELECT grantee, privilege_type, is_grantable FROM aclexplode(c.relacl) WHERE grantee <> c.relowner) a),
    (SELECT array_agg(pg_get_indexdef(i.indexrelid) ORDER BY 1) FROM pg_index i WHERE i.indrelid = c.oid),
    (SELECT array_agg(k.conname || ' ' || pg_get_constraintdef(k.oid) ORDER BY 1)
        FROM pg_constraint k WHERE k.conrelid = c.oid),
    (SELECT array_agg(row(a.attname, a.atttypid, a.atttypmod, a.attnotnull, pg_get_expr(d.adbin, d.adrelid))::text
        ORDER BY a.attnum) FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = c.oid AND a.attnum > 0),
    pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid)
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1
"""


@pytest.fixture
def traffic(postgres_url: str, tmp_path: Path) -> Iterator[Traffic]:
    made = Traffic(postgres_url, f"sqlite:///{tmp_path}/log.db")
    made.send(20)
    made.count()
    yield made
    made.close()


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    """A role of the server, gone after the test."""
    name = "r" + postgres_url[-12:]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'CREATE ROLE "{name}" LOGIN'.encode())
        yield name
        connection.execute(f'REASSIGN OWNED BY "{name}" TO postgres'.encode())
        connection.execute(f'DROP OWNED BY "{name}"'.encode())
        connection.execute(f'DROP ROLE "{name}"'.encode())


def shape(traffic: Traffic) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in traffic.rows(_SHAPE)]


def schemas(traffic: Traffic) -> set[str]:
    return {row[0] for row in traffic.rows("SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information)'")}


def test_owners_rights_row_security_keys_and_partitions_come_along(traffic: Traffic, role: str) -> None:
    traffic.execute(
        f'GRANT SELECT ON counts, seen TO "{role}"',
        f'GRANT UPDATE ON counts TO "{role}" WITH GRANT OPTION',
        "GRANT SELECT ON ledger TO PUBLIC",
        "ALTER TABLE rejected ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE sessions ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE sessions FORCE ROW LEVEL SECURITY",
        f'GRANT CREATE ON SCHEMA public TO "{role}"',
        f'ALTER TABLE cohorts OWNER TO "{role}"',
        f'ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO "{role}"',
    )
    create_day_partitions(traffic.engine, [30_000, 30_001])  # as live workers make them, of days that are not read
    before, numbers = shape(traffic), traffic.numbers()
    names = {row[0] for row in before}
    assert {"seen_30000", "counts", "offsets"} <= names
    traffic.rebuild()
    after = [row for row in shape(traffic) if row[0] in names]
    assert after == before
    assert traffic.rows(
        "SELECT DISTINCT reloptions FROM pg_class WHERE oid IN ('counts'::regclass, 'ledger'::regclass)"
    ) == [(["fillfactor=50"],)], "the room that rows need which are updated all the time"
    assert traffic.numbers() == numbers
    assert schemas(traffic) == {"public"}


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("CREATE VIEW report AS SELECT * FROM counts", "the view report reads counts"),
        ("CREATE MATERIALIZED VIEW report AS SELECT * FROM ledger", "the view report reads ledger"),
        ("CREATE POLICY mine ON sessions USING (true)", "sessions has the policy mine"),
        ("CREATE PUBLICATION everything FOR TABLE counts", "counts is in the publication everything"),
        ("GRANT SELECT (views) ON counts TO PUBLIC", "counts has rights on its column views"),
        ("CREATE TABLE mine (t text, p int, FOREIGN KEY (t, p) REFERENCES offsets)", "offsets has the foreign key"),
        (
            "CREATE TRIGGER mine BEFORE UPDATE ON ledger EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "ledger has the trigger mine",
        ),
    ],
)
def test_what_would_be_left_behind_is_a_refusal_before_anything_is_read(
    traffic: Traffic, statement: str, problem: str
) -> None:
    if "TRIGGER" in statement:
        statement = statement.replace("EXECUTE", "FOR EACH ROW EXECUTE")
    traffic.execute(statement)
    with pytest.raises(RebuildError, match=f"the tables cannot be swapped: .*{problem}"):
        traffic.rebuild()
    assert schemas(traffic) == {"public"}


def test_tables_of_somebody_else_are_a_refusal_before_anything_is_read(traffic: Traffic, role: str) -> None:
    traffic.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"')
    theirs = traffic.store_url.replace("postgres@", f"{role}@")
    with closing(open_beside(theirs)) as beside, pytest.raises(RebuildError, match="counts belongs to postgres"):
        beside.check()


def test_an_installation_in_a_schema_of_its_own_is_rebuilt_there(traffic: Traffic) -> None:
    [(database,)] = traffic.rows("SELECT current_database()")
    traffic.execute(
        'ALTER SCHEMA public RENAME TO "Zen step"', f'ALTER DATABASE "{database}" SET search_path = "Zen step"'
    )
    traffic.engine.dispose()
    before = traffic.numbers()
    traffic.execute("UPDATE counts SET views = views + 1")
    traffic.rebuild()
    assert traffic.numbers() == before
    assert schemas(traffic) == {"Zen step"}


def test_a_worker_waits_for_no_rebuild_that_reads(traffic: Traffic) -> None:
    """Batches of a rebuild lock no row of the catalogue that live batches lock."""
    with closing(open_beside(traffic.store_url)) as beside, beside.alone():
        beside.create({})
        beside.prepare()
        query = sa.text("SELECT organisation_id FROM organisations FOR NO KEY UPDATE NOWAIT")
        with beside.engine.begin() as rebuilding, traffic.engine.begin() as live:
            assert len(rebuilding.execute(query).all()) == len(live.execute(query).all()) == 3
        beside.throw_away()


def test_tables_in_which_good_events_fail_are_not_put_in_place(traffic: Traffic) -> None:
    before = traffic.numbers()
    asked = iter(range(1))
    with pytest.raises(Interrupted):
        traffic.rebuild(5, stopping=lambda: next(asked, None) is None)
    traffic.execute("ALTER TABLE public_rebuild.counts ADD CHECK (views > 1000000) NOT VALID")
    with pytest.raises(RebuildError, match=r"\d+ events fail that did not fail for the workers"):
        traffic.rebuild()
    assert traffic.numbers() == before
    traffic.run(lambda rebuild: rebuild.swap(restart=True))
    assert traffic.numbers() == before
