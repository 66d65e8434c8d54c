"""Requests made up from the OpenAPI document, good ones and bad ones, against the whole system over HTTP."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.openapi.examples import FLOW_ID, STEP_ID
from schemas.openapi.operations import OPERATIONS
from tests.issuer import secret_token
from tests.whole import whole_system

EXAMPLES = 5
SEED = 20260330
# What is not a fault, and why.
CONFIG = """
[warnings]
enabled = false

[[operations]]
include-path-regex = "checklist-progress"
# One of two parameters is needed, and a step of this flow: neither can be said.
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path-regex = "analytics"
# Dates, times and zones are said in words.
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.timeout(170)
@pytest.mark.parametrize("credential", ["key", "session"])
def test_no_request_is_answered_as_the_document_does_not_say(
    credential: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, note: Callable[[str], None]
) -> None:
    monkeypatch.setattr("ingest.gate.STRANGERS", 10_000_000)  # it tries without credentials thousands of times
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with whole_system(tmp_path, limit=10_000_000) as system:
        bearer = system.keys[0] if credential == "key" else secret_token()
        names = [op.name for op in OPERATIONS if op.credential in (credential, "none")]
        document = system.client.get("/api/v1/openapi.json").text
        ids = {FLOW_ID: system.flows[0].flow_id, STEP_ID: system.flows[0].steps[0].step_id}
        for example, real in ids.items():
            document = document.replace(example, real)
        (tmp_path / "openapi.json").write_text(document)
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("st"), "--config-file", "schemathesis.toml"),
                *("run", "openapi.json", "--url", system.base, "--header", f"Authorization: Bearer {bearer}"),
                *("--seed", str(SEED), "--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing"),
                *("--continue-on-failure", "--generation-database", "none"),
                *(f"--include-operation-id={name}" for name in names),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=160,
        )
    said = re.findall(r"(?m)^ .*(?:Operations:|generated|passed|failed).*$", done.stdout)
    note(f"schemathesis, {credential}: " + "; ".join(line.strip() for line in said))
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2000:]
