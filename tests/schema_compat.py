"""Whether a JSON Schema still takes all that an older one took. Careful rather than clever: what it cannot follow, it
reports. It knows what our schemas are made of."""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_SAME = ("pattern", "format", "allOf", "oneOf", "not", "if", "then", "else", "multipleOf", "uniqueItems", "contains")
_FOLLOWED = {"type", "enum", "const", "anyOf", "properties", "required", "items", "additionalProperties", "$ref"}
_WORDS = {"$schema", "$id", "$defs", "title", "description", "default", "examples"}
_KNOWN = {*_LEAST, *_MOST, *_SAME, *_FOLLOWED, *_WORDS}


def narrowed(old: Schema, new: Schema) -> list[str]:
    """Where the new document takes less than the old one, or no longer names a field."""
    return list(_narrowed(old, new, "$", (old, new)))


def _narrowed(old: Schema, new: Schema, path: str, roots: tuple[Schema, Schema]) -> Iterator[str]:
    old, new = _resolved(old, roots[0]), _resolved(new, roots[1])
    yield from (f"{path}: {word} is not understood here" for word in sorted({*old, *new} - _KNOWN))
    if "anyOf" in old or "anyOf" in new:
        yield from (
            f"{path}: {w} beside anyOf is not understood here"
            for s in (old, new)
            if "anyOf" in s
            for w in {*s} - {"anyOf", *_WORDS}
        )
        for option in old.get("anyOf", [old]):
            ways = [list(_narrowed(option, other, path, roots)) for other in new.get("anyOf", [new])]
            if all(ways):
                yield from min(ways, key=len)
        return
    if not _types(old) <= _types(new):
        yield f"{path}: type {sorted(_types(old))} became {sorted(_types(new))}"
        return
    if (values := _values(new)) is not None:
        before = _values(old)
        if before is None or any(value not in values for value in before):
            yield f"{path}: fewer values"
    for word in _LEAST:
        if word in new and new[word] > old.get(word, float("-inf")):
            yield f"{path}: {word} rose"
    for word in _MOST:
        if word in new and new[word] < old.get(word, float("inf")):
            yield f"{path}: {word} fell"
    for word in _SAME:
        if word in new and new[word] != old.get(word):
            yield f"{path}: {word} changed"
    for name in sorted({*new.get("required", [])} - {*old.get("required", [])}):
        yield f"{path}.{name}: became required"
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before:
        if name in after:
            yield from _narrowed(before[name], after[name], f"{path}.{name}", roots)
        else:
            yield f"{path}.{name}: is gone"
    for word in ("items", "additionalProperties"):
        if word in new and new[word] is not True:
            if new[word] is False and old.get(word) is not False:
                yield f"{path}: {word} are no longer taken"
            elif new[word] is not False and old.get(word) is not False:
                given = old.get(word, {})
                yield from _narrowed({} if given is True else given, new[word], f"{path}[]", roots)


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Words beside a `$ref` hold too; a definition is not expected to say them again."""
    while "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = {**found, **{word: value for word, value in schema.items() if word not in ("$ref", *_WORDS)}}
    return schema


_ALL = {"array", "boolean", "null", "number", "object", "string"}


def _types(schema: Schema) -> set[str]:
    given = schema.get("type")
    if given is None:
        values = _values(schema)
        return _ALL | {"integer"} if values is None else {_type(value) for value in values}
    types = {given} if isinstance(given, str) else set(given)
    return types | {"integer"} if "number" in types else types


def _type(value: Any) -> str:
    names = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array"}
    return names.get(type(value), "object")


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")
