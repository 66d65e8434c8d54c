"""`zenstep audit` as an operator would ask it, on the live installation."""

import subprocess

from chaos.installation import Installation
from tests.processes import PROGRAM, environment

SECONDS = 120


def audit(installation: Installation) -> list[str]:
    """What it finds wrong; nothing where the identity holds. Edges have flushed and workers caught up."""
    done = subprocess.run(
        [*PROGRAM, "audit", "--spools-empty"],
        env=environment(installation.direct),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    said = (done.stdout + done.stderr).strip().splitlines()
    return [f"zenstep audit: exit {done.returncode}: {line}" for line in said[-10:]] if done.returncode != 0 else []
