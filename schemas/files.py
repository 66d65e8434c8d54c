"""The JSON Schema files of schemas/json: one for every body that a client sends, one for every kind of record.

Made from the types by `zenstep schemas`; whoever reads a topic or writes a client in another language reads these.
"""

import json
from pathlib import Path
from typing import Any, get_args

import msgspec

from schemas import records
from schemas.jsonschema import portable, with_rules
from schemas.openapi.operations import OPERATIONS

FOLDER = Path(__file__).parent / "json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_files() -> dict[str, str]:
    """Their contents by name."""
    types = {f"request.{op.name}.json": op.body for op in OPERATIONS if op.body is not None}
    types |= {f"record.{kind.__struct_config__.tag}.json": kind for kind in get_args(records.AnyLine)}
    return {name: _text(kind) for name, kind in sorted(types.items())}


def _text(kind: type) -> str:
    made: dict[str, Any] = msgspec.json.schema(kind)
    definitions = with_rules(portable(made["$defs"]))
    whole = {"$schema": DIALECT, "$ref": made["$ref"], "$defs": definitions}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def stale(folder: Path, made: dict[str, str]) -> list[str]:
    """The names of files that are not what is made, that are missing, or that nothing makes any more."""
    there = {file.name: file.read_text() for file in folder.glob("*.json")}
    return sorted(name for name in there.keys() | made.keys() if there.get(name) != made.get(name))


def write(folder: Path, made: dict[str, str]) -> list[str]:
    """Brings the folder up to date; returns the names of the files that changed. Folders in it are left alone."""
    changed = stale(folder, made)
    folder.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in made:
            (folder / name).write_text(made[name])
        else:
            (folder / name).unlink()
    return changed
