"""The tables: what distributes them, and that the migrations make what the code believes in."""

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from backends.store.engine import open_engine
from schemas import tables as t


def test_every_table_distributes_by_organisation() -> None:
    leading = {table.name: next(iter(table.primary_key)).name for table in t.metadata.sorted_tables}
    assert {name for name, column in leading.items() if column != "organisation_id"} == t.INSTALLATION_TABLES


def test_the_migrations_make_the_tables_that_the_code_describes(store_url: str) -> None:
    engine = open_engine(store_url)
    with engine.connect() as connection:
        options = {"compare_type": engine.dialect.name == "postgresql", "include_object": _described}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), t.metadata) == []
    engine.dispose()


def _described(item: object, name: str | None, kind: str, *_: object) -> bool:
    """All but the partitions of `seen`, which are made as days come."""
    return not (kind == "table" and name is not None and name.startswith("seen_"))
