"""Where `zenstep replay` puts lines: a topic, a file, or nowhere."""

import os
from collections.abc import Sequence
from typing import BinaryIO, Protocol

import msgspec

from backends.log import LogError, RecordTooLarge
from cli.putting import CHUNK_BYTES, Routed, Target
from ingest.grouping import grouped
from schemas.records import Uuid


class _Header(msgspec.Struct):
    org: Uuid


_header = msgspec.json.Decoder(_Header)


def organisation_of(line: bytes) -> str | None:
    """Whose a line is, of any release; None where it cannot be read."""
    try:
        line.decode()
        return _header.decode(line).org.lower()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Sink(Protocol):
    def put(self, lines: Sequence[tuple[str | None, bytes]]) -> int:
        """Takes lines with whose they are; returns how many it could not take. Raises LogError, OSError."""


class ToLog:
    """A line that cannot be read goes to partition 0."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def put(self, lines: Sequence[tuple[str | None, bytes]]) -> int:
        routed = [Routed(0, line) if whose is None else self._target.route(whose, line) for whose, line in lines]
        too_large = 0
        for part in grouped(routed, lambda one: len(one.line), CHUNK_BYTES):
            outcomes = self._target.put(part)
            too_large += sum(isinstance(error, RecordTooLarge) for error in outcomes)
            failed: LogError | None = next((e for e in outcomes if e and not isinstance(e, RecordTooLarge)), None)
            if failed is not None:
                raise failed
        return too_large


class ToFile:
    """One line each, on the disk when `put` returns where that is a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def put(self, lines: Sequence[tuple[str | None, bytes]]) -> int:
        self._file.write(b"".join(line + b"\n" for _, line in lines))
        self._file.flush()
        return 0

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


class Nowhere:
    """Of a dry run."""

    def put(self, lines: Sequence[tuple[str | None, bytes]]) -> int:
        return 0
