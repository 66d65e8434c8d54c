"""Bodies of POST /events: what is taken, how it travels, and what is refused in which words."""

import hmac
import json
import uuid
from datetime import datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.answers import Refusal
from ingest.decode import UserHasher, decode, page_address
from ingest.problems import too_deep
from schemas import records
from schemas.events import MAX_DATA_DEPTH, MAX_EVENT_BYTES
from schemas.ids import uuid7_ms
from tests.bodies import FLOW, HASHER, ORGANISATION, RECEIVED, STEP, body, custom, raw, read, sealed, view

OTHER = "5a3f7f0e-8e41-4f0e-9a57-7f5f0f6a2b22"


def taken(content: bytes) -> records.RecordEvent:
    """The first event of a body that is taken, as it reaches the worker."""
    return read(sealed(decode(content))).events[0]


def refused(content: bytes) -> list[tuple[str, str]]:
    with pytest.raises(Refusal) as refusal:
        decode(content)
    assert refusal.value.status == 400
    answer = orjson.loads(refusal.value.body)
    assert answer["error"] == "Validation failed"
    return [(detail["path"], detail["message"]) for detail in answer["details"]]


def nested_once(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["[", '"}', "a"]), inner, max_size=3)


def depth_of(value: object) -> int:
    """How deep a value is nested, the slow and plain way."""
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max((depth_of(one) for one in inside), default=0)


# What is taken


def test_every_field_reaches_the_worker_as_documented() -> None:
    sent = view(
        id="AAAAAAAA-0000-4000-8000-00000000000A",
        stepId=STEP.upper(),
        sessionId="s-1",
        userId="someone@example.org",
        anonymousId="a-1",
        data={"plan": "pro", "seats": [1, 2]},
        timestamp="2026-03-01T12:00:00.123+01:00",
        url="https://app.example.org/page?token=secret#part",
        ignored={"any": "thing"},
    )
    found = read(sealed(decode(body(sent, sentAt=1_769_999_999_000))))
    assert (found.v, found.org, found.env, found.received) == (records.VERSION, ORGANISATION, "production", RECEIVED)
    assert found.sent == 1_769_999_999_000
    [event] = found.events
    assert event.id == "aaaaaaaa-0000-4000-8000-00000000000a"
    assert (event.type, event.flow, event.step) == ("view", FLOW.lower(), STEP)
    assert (event.session, event.anon, event.name) == ("s-1", "a-1", None)
    assert event.user == HASHER.hash(ORGANISATION, "someone@example.org")
    assert json.loads(bytes(event.data)) == sent["data"]  # type: ignore[arg-type]
    assert event.time == 1_772_362_800_123
    assert event.url == "https://app.example.org/page"
    assert b"someone" not in sealed(decode(body(sent)))
    assert b"secret" not in sealed(decode(body(sent)))


def test_an_event_without_an_id_is_given_one_of_its_receipt() -> None:
    first, second = read(sealed(decode(body(view(), view())))).events
    assert uuid7_ms(first.id) == uuid7_ms(second.id) == RECEIVED
    assert first.id != second.id
    assert first.id == first.id.lower()


def test_one_user_is_another_hash_in_another_organisation() -> None:
    request = decode(body(view(userId="u1")))
    here, there = (read(sealed(request, organisation)).events[0].user for organisation in (ORGANISATION, OTHER))
    assert here is not None and there is not None and here != there
    assert here == read(sealed(request)).events[0].user
    assert UserHasher("another secret").hash(ORGANISATION, "u1") != here


def test_the_hasher_keeps_few_keys_and_forgets_no_answer() -> None:
    small = UserHasher("a secret of the tests", size=2)
    organisations = [str(uuid.UUID(int=n)) for n in range(5)]
    assert [small.hash(o, "u") for o in organisations] == [HASHER.hash(o, "u") for o in organisations]
    assert len(small._keys) == 2


@given(st.text(max_size=300), st.uuids().map(str))
def test_a_hash_is_the_hmac_of_the_user_under_the_organisations_key(user: str, organisation: str) -> None:
    key = hmac.digest(b"a secret of the tests", b"zenstep user id\0" + organisation.encode(), "sha256")
    for _ in range(2):
        assert HASHER.hash(organisation, user) == hmac.digest(key, user.encode(), "sha256").hex()


def test_the_hasher_remembers_nobody() -> None:
    hasher = UserHasher("a secret of the tests")
    hasher.hash(ORGANISATION, "the first of the page")
    kept = repr(vars(hasher))
    for number in range(5_000):
        hasher.hash(ORGANISATION, f"user {number} of the page")
    assert repr(vars(hasher)) == kept
    assert "of the page" not in kept


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('"2026-03-01T11:00:00Z"', 1_772_362_800_000),
        ('"2026-03-01t11:00:00z"', 1_772_362_800_000),
        ('"2026-03-01T12:00:00+01:00"', 1_772_362_800_000),
        ('"2026-03-01T16:30:00.999999+0530"', 1_772_362_800_999),
        ("1772362800123", 1_772_362_800_123),
        ("1772362800123.75", 1_772_362_800_123),
        ("1.772362800123e12", 1_772_362_800_123),
        ("0", 0),
        ("-0.0", 0),
        ('"1969-12-31T23:59:59Z"', 0),
        ('"0001-01-01T00:00:00+23:59"', 0),
        ('"9999-12-31T23:59:59.999999-23:59"', records.MAX_CLIENT_MS),
        ("null", None),
    ],
)
def test_a_time_in_any_accepted_form_is_epoch_milliseconds(given: str, expected: int | None) -> None:
    assert taken(raw(f'"timestamp":{given}')).time == expected
    assert read(sealed(decode(body(view())[:-1] + f',"sentAt":{given}}}'.encode()))).sent == expected


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30)), st.integers(-1439, 1439))
def test_a_time_keeps_its_millisecond(local: datetime, offset: int) -> None:
    sign, minutes = "+-"[offset < 0], abs(offset)
    text = f"{local.isoformat()}{sign}{minutes // 60:02}:{minutes % 60:02}"
    since = local - timedelta(minutes=offset) - datetime(1970, 1, 1)
    expected = since // timedelta(milliseconds=1)
    assert taken(raw(f'"timestamp":"{text}"')).time == min(max(0, expected), records.MAX_CLIENT_MS)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://e.org/a?b#c", "https://e.org/a"),
        ("https://e.org/a#c?b", "https://e.org/a"),
        ("https://e.org/#/route?x", "https://e.org/"),
        ("/a", "/a"),
        ("", None),
    ],
)
def test_a_url_loses_its_query_and_fragment(url: str, kept: str | None) -> None:
    assert taken(body(view(url=url))).url == kept


@pytest.mark.parametrize(
    "data",
    [
        "null",
        "[]",
        '"text"',
        "-0",
        "1e999",
        "9" * 400,
        '{"a":1,"a":2}',
        '"\\u0000"',
        '"\\ud83d\\ude00"',
        '"\x7f\u2028"',
    ],
)
def test_data_may_be_any_json(data: str) -> None:
    event = taken(raw(f'"data":{data}'))
    assert bytes(event.data) == data.encode()  # type: ignore[arg-type]


def test_pretty_printed_data_is_still_one_line() -> None:
    event = taken(raw('"data": {\r\n  "a": "b\\nc",\n\t"d": [ 1 ]\n}'))
    assert json.loads(bytes(event.data)) == {"a": "b\nc", "d": [1]}  # type: ignore[arg-type]


def test_a_custom_event_needs_no_flow() -> None:
    event = taken(body(custom()))
    assert (event.type, event.name, event.flow) == ("custom", "bought", None)


def test_texts_are_counted_in_characters_and_may_be_as_long_as_documented() -> None:
    longest = {"sessionId": "😀" * 128, "userId": "é" * 255, "anonymousId": "a" * 128, "url": "/" + "é" * 2047}
    event = taken(body(custom(name="😀" * 255) | longest))
    assert (event.session, event.url) == (longest["sessionId"], longest["url"])


def test_fifty_events_are_taken() -> None:
    assert len(decode(body(*[view()] * 50)).events) == 50


def test_an_event_of_the_greatest_size_is_taken_and_one_byte_more_is_not() -> None:
    def sized(size: int) -> bytes:
        empty = len(orjson.dumps(view(data="")))
        return body(view(), view(data="x" * (size - empty)))

    assert len(decode(sized(MAX_EVENT_BYTES)).events) == 2
    assert refused(sized(MAX_EVENT_BYTES + 1)) == [("events[1]", "Larger than 32768 bytes")]


def test_data_of_the_greatest_depth_is_taken_and_one_level_more_is_not() -> None:
    def nested(depth: int) -> bytes:
        innermost = "[]" if depth % 2 else "0"
        return raw('"data":' + '{"[":[' * (depth // 2) + innermost + "]}" * (depth // 2))

    taken(nested(MAX_DATA_DEPTH))
    assert refused(nested(MAX_DATA_DEPTH + 1)) == [("events[0].data", f"Nested deeper than {MAX_DATA_DEPTH} levels")]


@given(st.recursive(st.sampled_from([0, "[[[", '}"{', "\\", "\\["]), nested_once, max_leaves=80), st.integers(0, 70))
def test_depth_is_what_counts_and_neither_brackets_in_strings_nor_many_of_them(inner: object, levels: int) -> None:
    value = [inner] * 30
    for level in range(levels):
        value = [value] if level % 2 else [{"a": value}]
    assert too_deep(json.dumps(value).encode()) == (depth_of(value) > MAX_DATA_DEPTH)


@pytest.mark.parametrize("space", [b"", b" \r\n\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_an_array_of_events_or_one_event_is_a_body_too(mark: bytes, space: bytes) -> None:
    for content, count in ((orjson.dumps([view(), custom()]), 2), (orjson.dumps(view(name="é")), 1), (body(view()), 1)):
        assert len(decode(mark + space + content + space).events) == count
    alone = decode(orjson.dumps(view(sentAt=1_769_999_999_000)))
    assert read(sealed(alone)).sent == 1_769_999_999_000


def test_the_greatest_size_of_an_event_is_the_same_in_every_shape() -> None:
    empty = len(orjson.dumps(view(data="")))
    largest = orjson.dumps(view(data="x" * (MAX_EVENT_BYTES - empty)))
    larger = orjson.dumps(view(data="x" * (MAX_EVENT_BYTES - empty + 1)))
    for shape in (b'{"events":[%b]}', b" [ %b ] ", b" %b "):
        assert len(decode(shape % largest).events) == 1
        assert refused(shape % larger) == [("events[0]", "Larger than 32768 bytes")]


# What is refused


@pytest.mark.parametrize(
    ("content", "details"),
    [
        (b"", [("", "Malformed JSON")]),
        (b"{", [("", "Malformed JSON")]),
        (b'\xef\xbb\xbf\xef\xbb\xbf{"events":[]}', [("", "Malformed JSON")]),
        (b"\xff\xfe{\x00}\x00", [("", "Malformed JSON")]),
        (b"null", [("", "Expected an object")]),
        (b"[]", [("events", "Expected 1 to 50 events")]),
        (b"[] []", [("", "Malformed JSON")]),
        (b"[null]", [("events[0]", "Expected an object")]),
        (b' [{"eventType":"custom"}]', [("events[0].name", "Required")]),
        (orjson.dumps([view()] * 51), [("events", "Expected 1 to 50 events")]),
        (
            orjson.dumps(view(id=1, eventType="click")),
            [("events[0].eventType", "Invalid enum value"), ("events[0].id", "Expected a UUID")],
        ),
        (b'{"eventType":"custom"}', [("events[0].name", "Required")]),
        (orjson.dumps(view(sentAt="now")), [("sentAt", "Expected an ISO 8601 time with offset or epoch milliseconds")]),
        (orjson.dumps(view(events=1)), [("events", "Expected an array")]),
        (orjson.dumps(view(events=[])), [("events", "Expected 1 to 50 events")]),
        (b'{"flowId":1}', [("events", "Required")]),
        (b'"events"', [("", "Expected an object")]),
        (b"{}", [("events", "Required")]),
        (b'{"events":null}', [("events", "Expected an array")]),
        (b'{"events":{"0":{}}}', [("events", "Expected an array")]),
        (b'{"events":[]}', [("events", "Expected 1 to 50 events")]),
        (body(*[view()] * 51), [("events", "Expected 1 to 50 events")]),
        (b'{"events":[null]}', [("events[0]", "Expected an object")]),
        (b'{"events":[{}]}', [("events[0].eventType", "Required")]),
        (body(view(eventType="VIEW")), [("events[0].eventType", "Invalid enum value")]),
        (body(view(eventType=None)), [("events[0].eventType", "Invalid enum value")]),
        (body(view(), {"eventType": "skip"}), [("events[1].flowId", "Required")]),
        (body({"eventType": "view", "flowId": None}), [("events[0].flowId", "Required")]),
        (body({"eventType": "custom"}), [("events[0].name", "Required")]),
        (body({"eventType": "custom", "name": None}), [("events[0].name", "Required")]),
        (body(custom(stepId=STEP)), [("events[0].flowId", "Required")]),
        (body(view(flowId="f1")), [("events[0].flowId", "Expected a UUID")]),
        (body(view(flowId=FLOW.replace("-", ""))), [("events[0].flowId", "Expected a UUID")]),
        (body(view(flowId=f"{{{FLOW}}}")), [("events[0].flowId", "Expected a UUID")]),
        (body(view(flowId=f"{FLOW}\n")), [("events[0].flowId", "Expected a UUID")]),
        (body(view(id=7)), [("events[0].id", "Expected a UUID")]),
        (body(view(stepId="")), [("events[0].stepId", "Expected a UUID")]),
        (body(view(sessionId="")), [("events[0].sessionId", "Expected a string of 1 to 128 characters")]),
        (body(view(sessionId="s" * 129)), [("events[0].sessionId", "Expected a string of 1 to 128 characters")]),
        (body(view(anonymousId=1)), [("events[0].anonymousId", "Expected a string of 1 to 128 characters")]),
        (body(view(userId="u" * 256)), [("events[0].userId", "Expected a string of 1 to 255 characters")]),
        (body(view(userId="a\x00b")), [("events[0].userId", "Expected a string of 1 to 255 characters")]),
        (body(custom(name="")), [("events[0].name", "Expected a string of 1 to 255 characters")]),
        (body(view(url="u" * 2049)), [("events[0].url", "Expected a string of at most 2048 characters")]),
        (body(view(url="/\x00")), [("events[0].url", "Expected a string of at most 2048 characters")]),
        (body(view(), sentAt="now"), [("sentAt", "Expected an ISO 8601 time with offset or epoch milliseconds")]),
    ],
)
def test_a_bad_body_is_refused_with_the_field_and_the_fault(content: bytes, details: list[tuple[str, str]]) -> None:
    assert refused(content) == details


@pytest.mark.parametrize(
    "given",
    [
        '"2026-03-01T12:00:00"',
        '"2026-03-01"',
        '"2026-02-30T12:00:00Z"',
        '"1772362800123"',
        '""',
        "-1",
        "-0.5",
        "253402300800000",
        "253402300799999.9",
        "1e400",
        "9" * 400,
        "true",
        "[]",
        "{}",
    ],
)
def test_a_time_in_another_form_is_refused(given: str) -> None:
    message = "Expected an ISO 8601 time with offset or epoch milliseconds"
    assert refused(raw(f'"timestamp":{given}')) == [("events[0].timestamp", message)]


NOT_UNICODE = [b'"\xff"', b'"\xc3("', b'"\xed\xa0\x80"', rb'"\ud800"', rb'"\ud83dx"']
NOT_JSON = [*NOT_UNICODE, b"NaN", b"-Infinity", b"01", b"'a'", b'"a\nb"', b"tru"]


@pytest.mark.parametrize("field", ['"data":%s', '"unknown":%s', '"name":%s', '"userId":%s', '"data":{"a":[%s]}'])
@pytest.mark.parametrize("value", NOT_JSON)
def test_what_is_not_json_in_utf_8_is_refused_wherever_it_stands(field: str, value: bytes) -> None:
    before, _, after = field.partition("%s")
    content = raw("@").replace(b"@", before.encode() + value + after.encode())
    assert refused(content) == [("", "Malformed JSON")]


@pytest.mark.parametrize("where", ['"data":%s', '"unknown":%s', '"name":%s'])
def test_a_body_nested_beyond_reason_is_refused(where: str) -> None:
    assert refused(raw(where % ("[" * 100_000 + "]" * 100_000))) == [("", "Nested too deep")]


@pytest.mark.parametrize(
    "content",
    [
        b'{"events":[{"eventType":"bad","eventType":"view","flowId":"%b"}]}' % FLOW.encode(),
        b'{"events":[1],"events":[{"eventType":"view","flowId":"%b"}]}' % FLOW.encode(),
    ],
)
def test_a_bad_value_is_not_hidden_behind_a_second_one_of_the_same_name(content: bytes) -> None:
    assert refused(content) == [("", "Malformed JSON")]


def test_every_bad_field_is_listed_with_its_path() -> None:
    content = body(
        {"eventType": "click", "flowId": "f", "userId": 1},
        {"eventType": "custom", "stepId": STEP, "data": "x" * MAX_EVENT_BYTES, "timestamp": "soon"},
        view(),
        {"flowId": FLOW},
        sentAt=-1,
    )
    time = "Expected an ISO 8601 time with offset or epoch milliseconds"
    assert refused(content) == [
        ("sentAt", time),
        ("events[0].eventType", "Invalid enum value"),
        ("events[0].flowId", "Expected a UUID"),
        ("events[0].userId", "Expected a string of 1 to 255 characters"),
        ("events[1]", "Larger than 32768 bytes"),
        ("events[1].timestamp", time),
        ("events[1].flowId", "Required"),
        ("events[1].name", "Required"),
        ("events[3].eventType", "Required"),
    ]


def test_a_number_beyond_floats_in_data_does_not_hide_which_field_is_bad() -> None:
    assert refused(raw('"data":1e999,"userId":1')) == [("events[0].userId", "Expected a string of 1 to 255 characters")]


def test_twenty_faults_are_listed_at_most() -> None:
    assert len(refused(body(*[{}] * 50))) == 20


def test_no_answer_repeats_what_was_sent() -> None:
    content = body({"eventType": "planted", "flowId": "planted", "userId": ["planted"], "planted": 1})
    with pytest.raises(Refusal) as refusal:
        decode(content)
    assert b"planted" not in refusal.value.body


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("https://app.example.org/a?token=secret#part", "https://app.example.org/a"),
        ("https://ada:secret@app.example.org/a?b", "https://app.example.org/a"),
        ("https://app.example.org/@ada", "https://app.example.org/@ada"),
        ("//ada@app.example.org", "//app.example.org"),
        ("/a/b?c", "/a/b"),
        ("?token=secret", ""),
        ("", None),
        (None, None),
    ],
)
def test_of_a_page_only_its_place_is_kept(sent: str | None, kept: str | None) -> None:
    assert page_address(sent) == kept
