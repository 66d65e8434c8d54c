"""JSON Schemas of our types: what msgspec makes of them, in the regular expressions of the standard, with the rules
that span fields added."""

from typing import Any

_PRESENT = {"not": {"type": "null"}}


def _needs(*names: str) -> dict[str, Any]:
    return {"required": list(names), "properties": dict.fromkeys(names, _PRESENT)}


RULES: dict[str, dict[str, Any]] = {
    # Every type but custom needs a flow, custom needs a name, a step needs its flow. ingest/problems.py says so too.
    "Event": {
        "allOf": [
            {
                "if": {"properties": {"eventType": {"const": "custom"}}},
                "then": _needs("name"),
                "else": _needs("flowId"),
            },
            {"if": _needs("stepId"), "then": _needs("flowId")},
        ]
    },
    "ProgressReport": {"allOf": [{"anyOf": [_needs("userId"), _needs("anonymousId")]}]},
}


def portable(schema: Any) -> Any:
    """`\\A` and `\\Z` are Python's own; in the regular expressions of JSON Schema `^` and `$` mean the same."""
    if isinstance(schema, dict):
        return {name: _pattern(value) if name == "pattern" else portable(value) for name, value in schema.items()}
    return [portable(item) for item in schema] if isinstance(schema, list) else schema


def with_rules(schemas: dict[str, Any]) -> dict[str, Any]:
    return {name: schema | RULES.get(name, {}) for name, schema in schemas.items()}


def _pattern(value: Any) -> Any:
    return value.replace(r"\A", "^").replace(r"\Z", "$") if isinstance(value, str) else portable(value)
