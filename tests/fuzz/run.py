"""Fuzzes one target with libFuzzer's own options: python -m tests.fuzz.run body -runs=20000 -seed=1."""

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore

with atheris.instrument_imports(include=["ingest", "readers", "schemas", "jwt"], enable_loader_override=False):
    from tests.fuzz.targets import SEEDS, TARGETS


def main(name: str, *options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS[name]):
            Path(folder, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, folder], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
