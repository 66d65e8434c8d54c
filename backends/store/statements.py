"""The statements of the worker's transaction, each over `given` rows, and put together once: of a small batch that
would take longer than running it.
"""

from functools import cache
from typing import Any

import sqlalchemy as sa

from backends.store.engine import insert_of
from backends.store.rows import Columns, given
from schemas import tables as t

Names = tuple[str, ...]


def columns(table: sa.Table, names: Names) -> Columns:
    return tuple(table.c[name] for name in names)


def keys(table: sa.Table) -> Names:
    """The names of the primary key's columns, in its order."""
    return tuple(column.name for column in table.primary_key)


def counters(table: sa.Table) -> Names:
    """Of a table of cells: all but the key and the sketch."""
    return tuple(column.name for column in table.c if not column.primary_key and column.name not in t.SKETCHES)


@cache
def found(dialect: str, table: sa.Table, names: Names, picked: Names) -> sa.Select[Any]:
    """These columns of the rows that are the same as given ones in `names`."""
    rows = given(dialect, columns(table, names))
    same = sa.and_(*(rows.c[name] == table.c[name] for name in names))
    return sa.select(*columns(table, picked)).select_from(rows.join(table, same))


@cache
def locked_organisations(dialect: str) -> sa.Select[Any]:
    c = t.organisations.c.organisation_id
    rows = given(dialect, (c,))
    query = sa.select(c).where(c.in_(sa.select(rows.c.organisation_id))).order_by(c)
    return query.with_for_update(key_share=True, of=t.organisations)


@cache
def horizon() -> sa.Select[Any]:
    return sa.select(sa.func.max(t.horizon.c.day))


@cache
def move_offset() -> sa.Update:
    """Of one partition, where it stands as `expected`."""
    o = t.offsets.c
    later = sa.case((o.processed_through < _through(), _through()), else_=o.processed_through)
    return _stands_there(t.offsets.update()).values(next_offset=sa.bindparam("following"), processed_through=later)


@cache
def mark_caught_up() -> sa.Update:
    """Of one partition, where it stands as `expected` and is not known to be so far in time."""
    update = _stands_there(t.offsets.update()).where(t.offsets.c.processed_through < _through())
    return update.values(processed_through=_through())


def _through() -> sa.BindParameter[int]:
    return sa.bindparam("through", type_=sa.BigInteger)


def _stands_there(update: sa.Update) -> sa.Update:
    o = t.offsets.c
    return update.where(
        o.topic == sa.bindparam("of_topic"),
        o.partition == sa.bindparam("of_partition"),
        o.next_offset == sa.bindparam("expected"),
    )


@cache
def insert(dialect: str, table: sa.Table, names: Names) -> "sa.dialects.postgresql.Insert":
    """Fails where one is there already."""
    rows = given(dialect, columns(table, names))
    # SQLite takes ON CONFLICT for a join's ON where a SELECT has no WHERE.
    return insert_of(dialect, table).from_select(names, sa.select(rows).where(sa.true()))


@cache
def insert_missing(dialect: str, table: sa.Table, names: Names) -> sa.Insert:
    return insert(dialect, table, names).on_conflict_do_nothing()


@cache
def insert_entered(dialect: str, table: sa.Table, names: Names, picked: Names) -> sa.Executable:
    """Enters those that are missing and returns these columns of them as one text each.

    PostgreSQL returns one text of all, with commas between: it is read in a fraction of the time of so many rows.
    """
    returning = insert(dialect, table, names).on_conflict_do_nothing().returning(*columns(table, picked))
    if dialect != "postgresql":
        return returning
    each = [sa.cast(column, sa.Text) for column in returning.cte("entered").c]
    return sa.select(sa.func.string_agg(sa.func.concat(*each), ","))


@cache
def replace(dialect: str, table: sa.Table, names: Names) -> sa.Insert:
    """Enters rows, each in place of the one that is there."""
    new = insert(dialect, table, names)
    left = [name for name in names if name not in keys(table)]
    return new.on_conflict_do_update(index_elements=list(keys(table)), set_={name: new.excluded[name] for name in left})


@cache
def add(dialect: str, table: sa.Table) -> sa.Insert:
    """Adds to the counters of a table of cells, and puts a sketch, where one is given, in place of the one there."""
    new = insert(dialect, table, keys(table) + counters(table) + t.sketch_of(table))
    sums = {name: table.c[name] + new.excluded[name] for name in counters(table)}
    kept = {name: sa.func.coalesce(new.excluded[name], table.c[name]) for name in t.sketch_of(table)}
    return new.on_conflict_do_update(index_elements=list(keys(table)), set_=sums | kept)


@cache
def replace_earlier(dialect: str, table: sa.Table, names: Names, by: Names) -> sa.Insert:
    """Enters rows, each in place of the one that is there unless that one is later in the columns `by`."""
    new = insert(dialect, table, names)
    left = [name for name in names if name not in keys(table)]
    return new.on_conflict_do_update(
        index_elements=list(keys(table)),
        set_={name: new.excluded[name] for name in left},
        where=sa.tuple_(*(new.excluded[name] for name in by)) > sa.tuple_(*columns(table, by)),
    )


@cache
def delete_hosts(dialect: str) -> sa.Delete:
    """Of these organisations, all hosts but the `limit` that were heard of last."""
    h = t.heartbeats.c
    latest_first = sa.func.row_number().over(
        partition_by=h.organisation_id, order_by=(h.last_seen_at.desc(), h.host.desc())
    )
    whose = sa.select(given(dialect, (h.organisation_id,)).c.organisation_id)
    ranked = (
        sa.select(h.organisation_id, h.host, latest_first.label("n")).where(h.organisation_id.in_(whose)).subquery()
    )
    beyond = sa.select(ranked.c.organisation_id, ranked.c.host).where(ranked.c.n > sa.bindparam("limit"))
    return t.heartbeats.delete().where(sa.tuple_(h.organisation_id, h.host).in_(beyond))
