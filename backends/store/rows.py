"""Many rows for one statement, whatever their number: an array a column on PostgreSQL, one JSON text on SQLite.

A bound variable a value would have the driver and the planner work on each of them, and a list of keys to look for
makes PostgreSQL compare every row with every key. Rows that are given as a table are joined.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

T = TypeVar("T")

STATEMENT_ROWS = 20_000  # so that a statement's text has a bound
SKETCH_ROWS = 1_000  # of up to 32 KiB each, in hex


class Given(NamedTuple):
    """Rows as a table to select from, and the parameters to execute with."""

    table: sa.FromClause
    parameters: dict[str, str]

    def joined(self, table: sa.Table, names: Sequence[str]) -> sa.Join:
        """With the rows of a table that are the same in these columns."""
        return self.table.join(table, sa.and_(*(self.table.c[name] == table.c[name] for name in names)))


def given(connection: sa.Connection, columns: Sequence[sa.Column[Any]], rows: Sequence[Sequence[Any]]) -> Given:
    """Rows of at least one, each with a value for every one of these columns of a table."""
    if connection.dialect.name == "postgresql":
        return _arrays(columns, rows)
    return _json(columns, rows)


def chunks(rows: Sequence[T], size: int = STATEMENT_ROWS) -> Iterator[Sequence[T]]:
    """As few statements' worth of rows as there are."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _arrays(columns: Sequence[sa.Column[Any]], rows: Sequence[Sequence[Any]]) -> Given:
    arrays, names, parameters = [], [], {}
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        kind, write = _FORMS.get(type(column.type), _TEXT)
        parameters[column.name] = write(values)
        array = sa.cast(sa.bindparam(column.name, type_=sa.Text), postgresql.ARRAY(kind))
        # As a query of its own it is read once: the planner would read it for its length, and the executor again.
        arrays.append(sa.select(array).scalar_subquery())
        names.append(sa.column(column.name, kind))
    table = sa.func.unnest(*arrays).table_valued(*names, name="given").render_derived()
    if not any(isinstance(column.type, sa.JSON) for column in columns):
        return Given(table, parameters)
    picked = [
        sa.cast(table.c[column.name], sa.JSON).label(column.name) if isinstance(column.type, sa.JSON) else one
        for column, one in zip(columns, table.c, strict=True)
    ]
    return Given(sa.select(*picked).subquery("given"), parameters)


def _numbers(values: Sequence[int | None]) -> str:
    if None not in values:
        return f"{{{','.join(map(str, values))}}}"
    return f"{{{','.join('NULL' if value is None else str(value) for value in values)}}}"


def _texts(values: Sequence[str | None]) -> str:
    if None not in values:
        joined = '","'.join(values)  # type: ignore[arg-type]
        if "\\" not in joined and joined.count('"') == 2 * (len(values) - 1):
            return f'{{"{joined}"}}'
    return f"{{{','.join('NULL' if value is None else _quoted(value) for value in values)}}}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _documents(values: Iterable[Any]) -> str:
    return _texts([orjson.dumps(value).decode() for value in values])


def _bytes(values: Iterable[bytes]) -> str:
    return '{"' + '","'.join(["\\\\x" + value.hex() for value in values]) + '"}'


_TEXT = (sa.Text(), _texts)  # not VARCHAR(n): a cast would cut what is too long, where an INSERT refuses it
_FORMS: Mapping[type[Any], tuple[sa.types.TypeEngine[Any], Callable[[Any], str]]] = {
    sa.Integer: (sa.Integer(), _numbers),
    sa.BigInteger: (sa.BigInteger(), _numbers),
    sa.Boolean: (sa.Boolean(), _numbers),
    sa.Uuid: (sa.Uuid(as_uuid=False), _texts),
    sa.JSON: (sa.Text(), _documents),
    sa.LargeBinary: (sa.LargeBinary(), _bytes),
}
"""Of a type: what its array is of, and how that is written. All else is text."""


def _json(columns: Sequence[sa.Column[Any]], rows: Sequence[Sequence[Any]]) -> Given:
    text = orjson.dumps(rows if isinstance(rows, list) else list(rows), default=bytes.hex).decode()
    each = sa.func.json_each(sa.bindparam("given", type_=sa.Text)).table_valued("value", name="each")
    picked = []
    for place, column in enumerate(columns):
        value: Any = sa.func.json_extract(each.c.value, f"$[{place}]")
        if isinstance(column.type, sa.LargeBinary):
            value = sa.func.unhex(value)
        elif isinstance(column.type, sa.Uuid):
            value = sa.func.replace(value, "-", "")
        picked.append(value.label(column.name))
    return Given(sa.select(*picked).subquery("given"), {"given": text})
