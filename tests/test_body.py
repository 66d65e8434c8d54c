"""Reading a request's body: its bounds in size and time, its types, and a client that goes away in the middle."""

import asyncio
import gzip
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import orjson
import pytest

from ingest.answers import Refusal
from ingest.body import MAX_BODY_BYTES, ClientGone, read_body

Headers = list[tuple[bytes, bytes]]


class Client:
    """Sends these chunks and then, where it does not end its body, nothing more."""

    def __init__(self, *chunks: bytes, ends: bool = True, goes: bool = False) -> None:
        self._chunks = list(chunks)
        self._ends = ends
        self._goes = goes
        self.asked = 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if self._chunks:
            chunk = self._chunks.pop(0)
            return {"type": "http.request", "body": chunk, "more_body": bool(self._chunks) or not self._ends}
        if not self._goes:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}


def read(client: Client, headers: Headers | None = None, seconds: float = 15) -> bytes:
    return asyncio.run(read_body(headers or [], client.receive, seconds))


def refused(client: Client, headers: Headers | None = None, seconds: float = 15) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        read(client, headers, seconds)
    return refusal.value


def sized(size: int) -> Iterable[bytes]:
    return [b"x" * 1000] * (size // 1000) + [b"x" * (size % 1000)]


@pytest.mark.parametrize("chunks", [[b""], [b"ab"], [b"a", b"", b"b"]])
def test_a_body_is_read_whole_however_it_comes(chunks: list[bytes]) -> None:
    assert read(Client(*chunks)) == b"".join(chunks)


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json",
        b"Application/JSON; charset=utf-8",
        b"text/plain;charset=UTF-8",
        b"text/plain",
        b"application/octet-stream",
        b"",
    ],
)
def test_json_is_taken_under_the_types_browsers_send_it_as(kind: bytes) -> None:
    assert read(Client(b"{}"), [(b"content-type", kind)]) == b"{}"


@pytest.mark.parametrize(
    "header",
    [
        (b"content-type", b"application/xml"),
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"content-type", b"application/jsonp"),
        (b"content-type", b"application/json, text/plain"),
        (b"content-encoding", b"br"),
        (b"content-encoding", b"gzip, gzip"),
        (b"content-encoding", b"identity, gzip"),
        (b"content-encoding", b"*"),
    ],
)
def test_another_type_or_coding_is_a_415_before_a_byte_is_read(header: tuple[bytes, bytes]) -> None:
    client = Client(b"{}")
    refusal = refused(client, [header])
    assert (refusal.status, refusal.body, client.asked) == (415, b'{"error":"Unsupported media type"}', 0)
    named = dict(refusal.headers).get(b"accept-encoding")
    assert named == (b"deflate, gzip, x-gzip, zstd" if header[0] == b"content-encoding" else None)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        (b"content-type", b"application/json", b"application/x-www-form-urlencoded"),
        (b"content-type", b"text/plain", b"text/plain"),
        (b"content-encoding", b"gzip", b"gzip"),
        (b"content-encoding", b"gzip", b"deflate"),
    ],
)
def test_two_types_or_two_codings_are_a_415(name: bytes, first: bytes, second: bytes) -> None:
    client = Client(b"{}")
    assert refused(client, [(name, first), (name, second)]).status == 415
    assert client.asked == 0


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b" x-gzip "])
def test_a_coding_is_undone_whatever_its_case(coding: bytes) -> None:
    packed = gzip.compress(b'{"events":[]}')
    assert read(Client(packed[:9], packed[9:]), [(b"content-encoding", coding)]) == b'{"events":[]}'


@pytest.mark.parametrize("coding", [b"", b"identity", b"Identity"])
def test_no_coding_is_nothing_to_undo(coding: bytes) -> None:
    assert read(Client(b"{}"), [(b"content-encoding", coding), (b"content-encoding", b"identity")]) == b"{}"


FORM = (b"content-type", b"application/x-www-form-urlencoded; charset=UTF-8")
JSON = '{"events":[{"name":"a+b = 100% é=","data":"&x\\n"}]}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        urlencode({"data": JSON}).encode(),
        urlencode({"key": "data=1", "data": JSON, "metadata": "x"}).encode(),
        b"data=" + quote_from_bytes(JSON, safe="").encode(),
        b"data=" + quote_from_bytes(JSON, safe='{}:[]"=,').encode().lower(),
        b"data=" + JSON.replace(b"%", b"%25").replace(b"+", b"%2b").replace(b"&", b"%26"),
    ],
)
def test_a_form_has_its_json_in_one_field(body: bytes) -> None:
    assert orjson.loads(read(Client(body), [FORM])) == orjson.loads(JSON)


def test_a_form_may_come_compressed() -> None:
    body = gzip.compress(urlencode({"data": JSON}).encode())
    assert read(Client(body), [FORM, (b"content-encoding", b"gzip")]) == JSON


@pytest.mark.parametrize(
    "body", [b"", JSON, b"DATA=1", b"xdata=1", b"data", b"data=1&data=2", b"data=%7", b"data=%zz", b"data=1=\r\n2"]
)
def test_a_form_that_could_be_read_in_no_way_or_in_two_is_a_400(body: bytes) -> None:
    refusal = refused(Client(body), [FORM])
    assert (refusal.status, orjson.loads(refusal.body)) == (
        400,
        {
            "error": "Validation failed",
            "details": [{"path": "", "message": "Malformed form: expected one field data"}],
        },
    )


def test_every_byte_comes_through_a_form() -> None:
    content = bytes(range(256)) + b" =3D== \t%41%% "
    assert read(Client(b"data=" + quote_from_bytes(content).encode()), [FORM]) == content


def test_the_greatest_body_is_read() -> None:
    length = (b"content-length", str(MAX_BODY_BYTES).encode())
    assert len(read(Client(*sized(MAX_BODY_BYTES)), [length])) == MAX_BODY_BYTES


@pytest.mark.parametrize("length", [MAX_BODY_BYTES + 1, 10**30])
def test_a_length_over_the_bound_is_a_413_before_a_byte_is_read(length: int) -> None:
    client = Client(b"{}")
    refusal = refused(client, [(b"content-length", str(length).encode())])
    assert (refusal.status, refusal.body, client.asked) == (413, b'{"error":"Payload too large"}', 0)


def test_a_body_that_grows_over_the_bound_is_a_413_and_read_no_further() -> None:
    client = Client(*sized(2 * MAX_BODY_BYTES))
    assert refused(client).status == 413
    assert client.asked == MAX_BODY_BYTES // 1000 + 1


def test_a_body_that_does_not_come_is_a_408_that_ends_the_connection() -> None:
    refusal = refused(Client(b"{", ends=False), seconds=0.01)
    assert (refusal.status, refusal.body) == (408, b'{"error":"Request timeout"}')
    assert (b"connection", b"close") in refusal.headers


def test_a_client_that_goes_in_the_middle_is_told_nothing() -> None:
    with pytest.raises(ClientGone):
        read(Client(b"{", ends=False, goes=True))
