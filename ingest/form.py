"""From a small body to its struct, or to every field that is bad: ingest/problems.py for bodies of one object."""

from codecs import BOM_UTF8
from typing import Generic, TypeVar

import msgspec

from ingest.answers import invalid
from ingest.problems import MALFORMED, MESSAGES, Problem, fits, too_deep, types_of
from schemas.events import MAX_DATA_DEPTH
from schemas.small import MAX_FINGERPRINT_BYTES, MAX_SMALL_BYTES

S = TypeVar("S", bound=msgspec.Struct)

_BOOL = "Expected true or false"
_SAID = {**MESSAGES, "completed": _BOOL, "found": _BOOL, "fingerprint": "Expected an object"}
_LARGEST = {"fingerprint": MAX_FINGERPRINT_BYTES}
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Form(Generic[S]):
    """Bodies of one struct. A field that no type looks into may be nested to a depth, and a fingerprint has a size."""

    def __init__(self, struct: type[S], person: bool = False) -> None:
        self._decoder = msgspec.json.Decoder(struct)
        self._types = types_of(struct)
        self._required = [f.encode_name for f in msgspec.structs.fields(struct) if f.required]
        self._person = person

    def read(self, body: bytes) -> S:
        """Raises a 400 Refusal that lists every bad field. Where `person` is needed, one of the two ids is."""
        try:
            body.decode()
            body = body.removeprefix(BOM_UTF8)
            fields = _object.decode(body)
        except msgspec.ValidationError:
            raise invalid([Problem("", "Expected an object")]) from None
        except RecursionError:
            raise invalid([Problem("", "Nested too deep")]) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise invalid([MALFORMED]) from None
        found = self._problems(body, fields)
        if found:
            raise invalid(found)
        try:
            return self._decoder.decode(body)
        except msgspec.DecodeError:  # a field that is there twice, once good and once bad
            raise invalid([MALFORMED]) from None

    def _problems(self, body: bytes, fields: dict[str, msgspec.Raw]) -> list[Problem]:
        found = [Problem("", f"Larger than {MAX_SMALL_BYTES} bytes")] if len(body) > MAX_SMALL_BYTES else []
        for name, decoder in self._types.items():
            value = fields.get(name)
            if value is None:
                found += [Problem(name, "Required")] if name in self._required else []
            elif not fits(value, decoder):
                found.append(Problem(name, _SAID[name]))
            elif len(bytes(value)) > _LARGEST.get(name, MAX_SMALL_BYTES):
                found.append(Problem(name, f"Larger than {_LARGEST.get(name, MAX_SMALL_BYTES)} bytes"))
            elif name in ("data", "fingerprint") and too_deep(bytes(value)):
                found.append(Problem(name, f"Nested deeper than {MAX_DATA_DEPTH} levels"))
        if self._person and all(bytes(fields.get(name, b"null")) == b"null" for name in ("userId", "anonymousId")):
            found.append(Problem("userId", "Expected a userId or an anonymousId"))
        return found
