"""A short run of every fuzz target, from the same start each time. Where there is no fuzzer the seeds alone are run."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import SEEDS, TARGETS

RUNS = {"body": 20_000, "key": 20_000, "token": 10_000}


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_reach_what_they_are_for(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine")
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_makes_a_target_do_what_it_must_not(name: str, tmp_path: Path) -> None:
    options = [f"-runs={RUNS[name]}", "-seed=1", "-max_len=2048", f"-artifact_prefix={tmp_path}/", "-verbosity=0"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", name, *options],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
