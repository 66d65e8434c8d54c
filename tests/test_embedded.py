"""The whole system in one process: it starts with what it needs and no more."""

import subprocess
import sys
from pathlib import Path

RUN = """
import gc, os, signal, sys
from pathlib import Path
from service import garbage
garbage.put_off()
from cli import embedded

def started():
    assert gc.isenabled() and gc.get_freeze_count() and gc.get_threshold()[0] == garbage.GARBAGE_OBJECTS
    os.kill(os.getpid(), signal.SIGTERM)

settings = embedded.settings_in(Path(sys.argv[1]), 0, 0)
embedded.prepare(settings)
embedded.run(settings, started)
print(*sys.modules)
"""


def imported(folder: Path) -> set[str]:
    """The modules of a process that has run the whole system in this folder."""
    done = subprocess.run([sys.executable, "-c", RUN, folder], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_on_sqlite_nothing_is_imported_for_other_logs_stores_and_limits(tmp_path: Path) -> None:
    has = imported(tmp_path / "data")
    assert {"cli.embedded", "workers.loop", "sqlalchemy.dialects.sqlite"} <= has
    assert not has & {"kafka", "psycopg", "redis", "httpx", "rich"}


def test_tables_of_this_release_need_no_migrations(tmp_path: Path) -> None:
    for _ in ("made", "found"):
        assert "alembic" not in imported(tmp_path / "data")
