"""An empty store with this release's tables: on SQLite a copy of one that was migrated once."""

import functools
import tempfile
from pathlib import Path

from backends.store.engine import open_engine
from backends.store.migrate import migrate


def make_store(url: str) -> None:
    """Twice is the same as once."""
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not file.exists():
        file.write_bytes(_migrated())
        return
    _migrate(url)


def _migrate(url: str) -> None:
    engine = open_engine(url)
    migrate(engine)
    engine.dispose()


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "store.db"
        _migrate(f"sqlite:///{file}")
        assert [path.name for path in Path(folder).iterdir()] == [file.name], "all is in the one file"
        return file.read_bytes()
