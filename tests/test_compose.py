"""What compose.yaml, .dockerignore and deploy/ say of the program, held against it. `make smoke` runs them."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from service.settings import Settings

ROOT = Path(__file__).parents[1]
FIELDS = {field.name: field for field in fields(Settings)}
COMPOSE = (ROOT / "compose.yaml").read_text()


def test_every_setting_that_is_set_exists() -> None:
    known = {f"ZENSTEP_{name.upper()}" for name in FIELDS}
    named = set(re.findall(r"ZENSTEP_[A-Z_]+", COMPOSE))
    assert named and named <= known


def test_ports_are_published_on_the_loopback_alone() -> None:
    lines = [line for line in COMPOSE.splitlines() if "ports:" in line]
    published = [port for line in lines for port in re.findall(r'"(.*?)"', line)]
    assert len(published) >= len(lines) > 0
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_prometheus_scrapes_the_admin_port_of_each_role() -> None:
    targets = re.findall(r"- targets: (.*)", (ROOT / "deploy/prometheus.yml").read_text())
    assert targets == [f'["{role}:{FIELDS[f"{role}_admin_port"].default}"]' for role in ("edge", "worker", "reader")]


def test_the_image_has_every_package() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(packages["packages"]) <= let_in
