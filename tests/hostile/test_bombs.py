"""Bodies that are small on the wire and huge inside, against the real program: refused, and its memory stays flat."""

import gzip
import random
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote_from_bytes

import httpx
import orjson
import pytest
import zstandard

from ingest.body import MAX_BODY_BYTES
from schemas.limits import MAX_LIMIT
from tests.edges import EVENTS, World, accepted, bearer, view
from tests.processes import Process, role

MIB = 1024 * 1024
ALLOWED_MIB = 24
"""What 200 bombs may add in all. One inflated whole would add four times as much."""
BOMBS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", lambda content: zlib.compress(content, wbits=-15)),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd of a stream": ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress),
    "zstd of a large window": (
        "zstd",
        zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=23, write_content_size=False)
        ).compress,
    ),
}


@pytest.fixture(scope="module")
def process(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    catalog = world.catalog()
    for organisation in world.organisations:
        catalog.set_limit(organisation, "events", MAX_LIMIT)
    with role("edge", world.environment(), tmp_path_factory.mktemp("edge")) as started:
        yield started


def peak_mib(process: Process) -> float:
    """The most memory that the process has had so far."""
    status = Path(f"/proc/{process.process.pid}/status")
    if not status.exists():
        pytest.skip("memory is read from /proc, which this system has not")
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def post(process: Process, key: str, content: bytes, times: int, **headers: str) -> set[tuple[int, bytes]]:
    """The answers to so many, eight at a time."""
    sent = bearer(key) | {name.replace("_", "-"): value for name, value in headers.items()}
    with httpx.Client(base_url=process.base, timeout=60) as client, ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda _: client.post(EVENTS, content=content, headers=sent), range(times))
        return {(answer.status_code, answer.content) for answer in answers}


def warm(process: Process, key: str) -> float:
    """The memory that bodies of the greatest size cost in any case."""
    packed = gzip.compress(orjson.dumps({"events": [view(data=random.Random(1).randbytes(4500).hex())] * 50}))
    assert {status for status, _ in post(process, key, packed, 40, content_encoding="gzip")} == {202}
    post(process, key, b"[" * MAX_BODY_BYTES, 40)
    return peak_mib(process)


@pytest.mark.parametrize(("coding", "encode"), BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_a_413_and_memory_stays_flat(
    process: Process, world: World, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    key = world.keys[0]
    before = warm(process, key)
    bomb = encode(bytes(96 * MIB))
    assert len(bomb) < MAX_BODY_BYTES
    answers = post(process, key, bomb, 200, content_encoding=coding)
    assert answers == {(413, b'{"error":"Payload too large"}')}
    assert peak_mib(process) - before < ALLOWED_MIB
    with httpx.Client(base_url=process.base) as client:
        packed = encode(orjson.dumps({"events": [view()]}))
        accepted(client.post(EVENTS, content=packed, headers=bearer(key) | {"Content-Encoding": coding}), 1)


def test_json_that_is_all_brackets_or_escapes_costs_no_memory(process: Process, world: World) -> None:
    key = world.keys[0]
    before = warm(process, key)
    half = MAX_BODY_BYTES // 2
    for content in (
        b"[" * half + b"]" * half,
        b'{"events":[' + b"{}," * (half // 2) + b"{}]}",
        b'{"events":[' + b"null," * 50_000 + b"null]}",
        b'{"a":' * (half // 6) + b"1" + b"}" * (half // 6),
        b'{"events":[{"eventType":"view","data":' + b'{"a":[' * 20_000 + b"]}" * 20_000 + b"}]}",
        b'"' + b"\\ud83d" * (half // 6) + b'"',
        b"9" * MAX_BODY_BYTES,
    ):
        assert {status for status, _ in post(process, key, content, 20)} == {400}
    form = b"data=" + quote_from_bytes(b"[" * (MAX_BODY_BYTES // 4)).encode()
    answers = post(process, key, form, 20, content_type="application/x-www-form-urlencoded")
    assert {status for status, _ in answers} == {400}
    assert peak_mib(process) - before < ALLOWED_MIB
