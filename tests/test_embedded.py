"""The whole system in one process: it starts with what it needs and no more."""

import subprocess
import sys
from pathlib import Path

RUN = """
import os, signal, sys
from pathlib import Path
from cli import embedded

def started():
    os.kill(os.getpid(), signal.SIGTERM)

settings = embedded.settings_in(Path(sys.argv[1]), 0, 0)
embedded.prepare(settings)
embedded.run(settings, started)
print(*sys.modules)
"""


def test_on_sqlite_nothing_is_imported_for_other_logs_stores_and_limits(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, tmp_path / "data"], capture_output=True, text=True, check=True)
    has = set(done.stdout.split())
    assert {"cli.embedded", "workers.loop", "sqlalchemy.dialects.sqlite"} <= has
    assert not has & {"kafka", "psycopg", "redis", "httpx", "rich"}
