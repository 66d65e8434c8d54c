"""The collector of cycles: off while a role starts, on while it runs."""

import subprocess
import sys
from pathlib import Path

import pytest

from cli import embedded
from tests.processes import environment
from tests.servers.ports import free_port

WATCHED = """
import gc, os, signal, sys, threading, time, urllib.request

role, admin = sys.argv.pop(1), sys.argv.pop(1)

def ready():
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz").status == 200
    except OSError:
        return False

def watch():
    while not ready():
        time.sleep(0.02)
    print(gc.isenabled(), gc.get_freeze_count() > 10_000)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=watch, daemon=True).start()
from cli.main import main
main([role])
"""


@pytest.mark.parametrize("role", ["edge", "worker", "reader"])
def test_it_is_on_when_a_role_is_ready_and_leaves_what_the_start_has_made(role: str, tmp_path: Path) -> None:
    settings = embedded.settings_in(tmp_path, 0, 0)
    embedded.prepare(settings)
    admin = free_port()
    given = {
        **{name: getattr(settings, name) for name in ("log_url", "store_url")},
        **{name: settings.require(name) for name in ("user_hash_secret", "jwt_secret")},
        f"{role}_admin_port": admin,
        "edge_port": 0,
        "reader_port": 0,
    }
    arguments = [sys.executable, "-c", WATCHED, role, str(admin)]
    done = subprocess.run(arguments, env=environment(given), capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout == "True True\n"
