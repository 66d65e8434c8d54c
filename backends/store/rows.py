"""Many rows for one statement, whatever their number: an array a column on PostgreSQL, one JSON text on SQLite.

A bound variable a value would have the driver and the planner work on each of them, and a list of keys to look for
makes PostgreSQL compare every row with every key. Rows that are given as a table are joined.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa

T = TypeVar("T")
Columns = tuple[sa.Column[Any], ...]

STATEMENT_ROWS = 20_000  # so that a statement's text has a bound
SKETCH_ROWS = 1_000  # of up to 32 KiB each, in hex


def chunks(rows: Sequence[T], size: int = STATEMENT_ROWS) -> Iterator[Sequence[T]]:
    """As few statements' worth of rows as there are."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def given(dialect: str, columns: Columns) -> sa.FromClause:
    """Rows as a table to select from, each with a value for every one of these columns of a table."""
    return _arrays(columns) if dialect == "postgresql" else _json(columns)


def parameters(dialect: str, columns: Columns, rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    """What a statement over `given` is executed with; one row or more."""
    if dialect == "postgresql":
        named = zip(columns, zip(*rows, strict=True), strict=True)
        return {f"given_{column.name}": _FORMS.get(type(column.type), _TEXT)[1](values) for column, values in named}
    return {"given": orjson.dumps(rows if isinstance(rows, list) else list(rows), default=bytes.hex).decode()}


def seen_rows(ids: Mapping[tuple[str, int], Sequence[str]]) -> bytes:
    """Rows of `seen`, event ids by organisation and day, as PostgreSQL's COPY reads them in binary.

    Each value after its length, all of it in hex until the end: that is the least to be done for each.
    """
    rows = []
    for (organisation, day), events in ids.items():
        head = f"000300000010{organisation}00000004{day:08x}00000010"
        rows += [head, head.join(events)]
    return b"PGCOPY\n\xff\r\n\0" + bytes(8) + bytes.fromhex("".join(rows).replace("-", "")) + b"\xff\xff"


def _arrays(columns: Columns) -> sa.FromClause:
    arrays, names = [], []
    for column in columns:
        kind = _FORMS.get(type(column.type), _TEXT)[0]
        array = sa.cast(sa.bindparam(f"given_{column.name}", type_=sa.Text), sa.ARRAY(kind))
        # As a query of its own it is read once: the planner would read it for its length, and the executor again.
        arrays.append(sa.select(array).scalar_subquery())
        names.append(sa.column(column.name, kind))
    table = sa.func.unnest(*arrays).table_valued(*names, name="given").render_derived()
    if not any(isinstance(column.type, sa.JSON) for column in columns):
        return table
    picked = [
        sa.cast(one, sa.JSON).label(column.name) if isinstance(column.type, sa.JSON) else one
        for column, one in zip(columns, table.c, strict=True)
    ]
    return sa.select(*picked).subquery("given")


def _numbers(values: Sequence[int | None]) -> str:
    if None not in values:
        return f"{{{str(list(values))[1:-1]}}}"
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


def _bytes(values: Iterable[bytes | None]) -> str:
    return f"{{{','.join(['NULL' if value is None else _hex(value) for value in values])}}}"


def _hex(value: bytes) -> str:
    return f'"\\\\x{value.hex()}"'


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


def _json(columns: Columns) -> sa.FromClause:
    each = sa.func.json_each(sa.bindparam("given", type_=sa.Text)).table_valued("value", name="each")
    picked = []
    for place, column in enumerate(columns):
        value: Any = sa.func.json_extract(each.c.value, f"$[{place}]")
        if isinstance(column.type, sa.LargeBinary):
            value = sa.func.unhex(value)
        elif isinstance(column.type, sa.Uuid):
            value = sa.func.replace(value, "-", "")
        picked.append(value.label(column.name))
    return sa.select(*picked).subquery("given")
