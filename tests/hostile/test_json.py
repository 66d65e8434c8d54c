"""JSON that parsers differ over, or that breaks what stands behind the edge: refused, or taken in one way."""

import json

import msgspec
import orjson
import pytest

from tests.edges import FLOW, Running, accepted, read_envelopes, view

VIEW = b'{"eventType":"view","flowId":"%b","sessionId":"%%b"%%b}' % FLOW.encode()


def body(session: bytes = b"s", more: bytes = b"") -> bytes:
    return b'{"events":[' + VIEW % (session, more) + b"]}"


def details(running: Running, content: bytes) -> list[tuple[str, str]]:
    answer = running.post(content)
    assert (answer.status_code, answer.json()["error"]) == (400, "Validation failed")
    return [(detail["path"], detail["message"]) for detail in answer.json()["details"]]


MALFORMED = {
    "not a number": body(more=b',"data":NaN'),
    "infinity": body(more=b',"data":[Infinity]'),
    "infinity below zero": body(more=b',"data":-Infinity'),
    "a lone surrogate in an escape": body(b"\\ud800"),
    "a lone surrogate in data": body(more=b',"data":"\\udc00\\ud800"'),
    "a lone surrogate in bytes": body(b"\xed\xa0\x80"),
    "a character in too many bytes": body(b"\xc0\xaf"),
    "a byte that is none": body(b"\xff"),
    "UTF-16": body().decode().encode("utf-16"),
    "UTF-32": body().decode().encode("utf-32"),
    "a NUL byte in a string": body(b"a\x00b"),
    "a NUL byte behind the end": body() + b"\x00",
    "two values": body() + body(),
    "a comment": body(more=b"/* */"),
    "a comma too many": body(more=b","),
    "a string in single quotes": body(more=b",'data':1"),
    "a number with a leading zero": body(more=b',"data":01'),
    "a number with a plus": body(more=b',"data":+1'),
    "a number in hexadecimal": body(more=b',"data":0x1'),
    "a control character in a string": body(b"a\x01b"),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_json_in_utf_8_is_malformed(running: Running, content: bytes) -> None:
    assert details(running, content) == [("", "Malformed JSON")]


@pytest.mark.parametrize("shape", [b"%b", b'{"events":%b}', b'[{"eventType":"view","data":%b}]'])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_without_end_is_refused(running: Running, shape: bytes, opening: bytes, closing: bytes) -> None:
    for inner in (opening * 50_000, opening * 50_000 + b"1" + closing * 50_000):
        [(path, message)] = details(running, shape % inner)
        assert (path, message) in [("", "Nested too deep"), ("", "Malformed JSON")]


def test_nesting_a_worker_would_not_read_is_refused_by_its_field(running: Running) -> None:
    nested = b',"data":' + b"[" * 65 + b"]" * 65
    assert details(running, body(more=nested)) == [("events[0].data", "Nested deeper than 64 levels")]


def test_a_nul_in_a_text_is_refused_since_no_postgresql_text_holds_it(running: Running) -> None:
    [(path, _)] = details(running, body(b"a\\u0000b"))
    assert path == "events[0].sessionId"


TAKEN = {
    "an integer beyond 64 bits": b"9" * 300,
    "a number beyond floats": b"1e999",
    "a number below floats": b"-1e-999",
    "a name twice": b'{"a":1,"a":{"a":2,"a":3}}',
    "names that are methods of objects": b'{"__proto__":{"a":1},"constructor":null,"":0}',
    "an escaped NUL": b'"a\\u0000b"',
    "a pair of surrogates": b'"\\ud83d\\ude00"',
    "characters that turn the text around": '"\u202e\u2066"'.encode(),
    "characters that are none": '"\uffff\ufdd0"'.encode(),
    "line ends that JavaScript knows": '"\u2028\u2029"'.encode(),
}


@pytest.mark.parametrize("data", TAKEN.values(), ids=TAKEN)
def test_odd_data_travels_as_it_was_sent(running: Running, data: bytes) -> None:
    accepted(running.post(body(more=b',"data":' + data)), 1)
    event = read_envelopes(running.world)[-1].events[0]
    assert json.loads(msgspec.json.encode(event.data)) == json.loads(data)


def test_a_name_that_is_there_twice_is_read_in_one_way(running: Running) -> None:
    """The last one counts, as with most parsers; a bad one is not hidden by a good one."""
    accepted(running.post(body(b"first", b',"sessionId":"second"')), 1)
    assert read_envelopes(running.world)[-1].events[0].session == "second"
    assert details(running, body(b"first", b',"sessionId":1')) == [
        ("events[0].sessionId", "Expected a string of 1 to 128 characters")
    ]
    assert details(running, body(b"", b',"sessionId":"good"')) == [("", "Malformed JSON")]
    assert details(running, b'{"events":[1],' + body()[1:]) == [("", "Malformed JSON")]


@pytest.mark.parametrize("number", [b"9" * 5000, b"-1", b"1e309", b"9223372036854775808", b"0.5e400", b"1e-5000"])
def test_a_time_that_is_no_time_is_refused_or_a_moment(running: Running, number: bytes) -> None:
    answer = running.post(body(more=b',"timestamp":' + number))
    if number == b"1e-5000":
        accepted(answer, 1)
    else:
        assert answer.status_code == 400
        assert [detail["path"] for detail in answer.json()["details"]] == ["events[0].timestamp"]


def test_a_mark_of_byte_order_is_passed_over(running: Running) -> None:
    accepted(running.post(b"\xef\xbb\xbf" + orjson.dumps({"events": [view()]})), 1)


def test_fields_that_mean_nothing_do_nothing(running: Running) -> None:
    """An organisation, a mark or a receipt that a client sends is nobody's."""
    sent = view(org="x", organisation="x", bot=True, received=1, v=2, user="raw", anon="raw", env="x", name=None)
    accepted(running.post({"events": [sent], "org": "x", "v": 9, "bot": True, "received": 1, "env": "x"}), 1)
    envelope = read_envelopes(running.world)[-1]
    event = envelope.events[0]
    assert (envelope.org, envelope.env, envelope.v) == (running.world.organisations[0], "production", 1)
    assert (event.user, event.anon) == (None, None)
    assert envelope.received > 1
