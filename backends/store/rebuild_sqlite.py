"""Tables beside the live ones on SQLite: a second file, `<store>.rebuild`, and a copy in one transaction at the end."""

import fcntl
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from backends.store.engine import open_engine, read_only
from backends.store.rebuild import Beside, Held, RebuildError
from schemas import tables as t


class SqliteBeside(Beside):
    """Seen from a worker the second file is the database, and names that it lacks are found in the live one.

    The live file is attached for reading only: a worker's BEGIN IMMEDIATE would hold the live workers back otherwise.
    """

    def __init__(self, url: str) -> None:
        self._path = Path(url.removeprefix("sqlite:///")).absolute()
        self._file = Path(f"{self._path}.rebuild")
        if not self._path.exists():
            raise RebuildError("the store has no tables yet: run `zenstep migrate`")
        super().__init__(_attaching(url, self._file, "beside"), "main", "beside")
        self._engine = _attaching(f"sqlite:///{self._file}", self._path, "live", "?mode=ro")

    @property
    def engine(self) -> sa.Engine:
        return self._engine

    @contextmanager
    def alone(self) -> Iterator[None]:
        with Path(f"{self._file}-lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RebuildError("another rebuild of this store runs") from None
            yield

    def conditions(self) -> dict[str, str] | None:
        return super().conditions() if self._file.exists() else None  # asking must not make it

    def check(self) -> None:
        """Nothing that hangs on a table is touched here: its rows are replaced."""

    def create(self, conditions: Mapping[str, str]) -> None:
        with self.control.begin() as connection:
            for table in [*self.beside.written(), self.beside.state]:
                table.create(connection)
            self._write_state(connection, conditions)

    def throw_away(self) -> None:
        self.close()
        for end in ("", "-wal", "-shm", "-journal"):
            Path(f"{self._file}{end}").unlink(missing_ok=True)

    def prepare(self) -> None:
        """The catalogue is read where it is."""

    def refresh(self) -> None:
        """SQLite plans these statements by their primary keys alone."""

    @contextmanager
    def held(self) -> Iterator[Held]:
        with read_only(self.control).begin() as connection:
            # Takes the live file's write lock and no lock of the other, which is still written to.
            o = self.live[t.offsets]
            connection.execute(o.update().where(sa.false()).values(next_offset=0))
            yield _Held(connection, self.live, self.beside)

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        with read_only(self.control).begin() as connection:
            for tables in (self.live, self.beside):
                connection.execute(sa.select(tables[t.offsets])).all()
            yield connection

    def close(self) -> None:
        self.engine.dispose()
        self.control.dispose()


class _Held(Held):
    def swap(self) -> None:
        self._carry_over()
        for new, old in zip(self.beside.written(), self.live.written(), strict=True):
            names = [column.name for column in new.columns]
            self.connection.execute(old.delete())
            self.connection.execute(old.insert().from_select(names, sa.select(*(new.c[name] for name in names))))


def _attaching(url: str, file: Path, name: str, query: str = "") -> sa.Engine:
    """An engine on one file whose connections have the other attached."""
    engine = open_engine(url)
    address = f"file:{quote(str(file))}{query}"

    @sa.event.listens_for(engine, "do_connect")
    def with_addresses(_: object, __: object, ___: object, parameters: dict[str, object]) -> None:
        parameters["uri"] = True

    @sa.event.listens_for(engine, "connect")
    def attach(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"ATTACH ? AS {name}", (address,))
        connection.execute(f"PRAGMA {name}.synchronous=FULL")

    return engine
