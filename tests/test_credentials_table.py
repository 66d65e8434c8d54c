"""Every route with no credential, wrong ones and the right one: run, and held in the table of docs/http.md."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.openapi.operations import OPERATIONS, Operation
from tests.issuer import secret_token
from tests.whole import Whole, whole_system

DOCUMENT = Path(__file__).parents[1] / "docs" / "http.md"
START, END = "<!-- credentials -->\n", "<!-- /credentials -->"
STRANGER = "9a3c41d2-5d5b-4b53-8f4e-4f3f4f0c7d11"
UNAUTHORIZED = '401 `{"error":"Unauthorized"}`'
FORBIDDEN = '403 `{"error":"Forbidden"}`'
NOT_FOUND = '404 `{"error":"Not found"}`'


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("ingest.gate.STRANGERS", 10_000)
        patched.setattr("readers.endpoint.STRANGERS", 10_000)
        with whole_system(tmp_path_factory.mktemp("system"), limit=10_000) as started:
            yield started


def ask(system: Whole, op: Operation, credential: str | None) -> tuple[int, str]:
    """The answer's status and body, of a good request for a flow or a step of the first organisation."""
    flow = system.flows[0]
    path = op.path.replace("{id}", flow.steps[0].step_id if "/steps/" in op.path else flow.flow_id)
    body = dict(op.body_example) if op.body_example else None
    if body is not None and "stepId" in body:
        body["stepId"] = flow.steps[0].step_id
    query = {"userId": "ada"} if op.query and op.query[0].name == "userId" else {}
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    answer = system.client.request(op.method, path, json=body, params=query, headers=headers)
    return answer.status_code, answer.text


def credentials(system: Whole, op: Operation) -> dict[str, Any]:
    session = secret_token()
    stranger = secret_token(sub=STRANGER)  # a good session of somebody who is no member
    if op.credential == "session":
        return {
            "none": None,
            "wrong": "x" * 200,
            "of the other kind": system.keys[0],
            "another": stranger,
            "right": session,
        }
    return {
        "none": None,
        "wrong": "x" * 32,
        "of the other kind": session,
        "another": system.keys[1],
        "right": system.keys[0],
    }


def cell(status: int, body: str) -> str:
    if status >= 400:
        return f"{status} `{body}`"
    return f"{status} `{body}`" if len(body) < 30 else f"{status}"


def table(system: Whole) -> str:
    rows = []
    columns = ["none", "wrong", "of the other kind", "another", "right"]
    for op in OPERATIONS:
        given = credentials(system, op)
        cells = [cell(*ask(system, op, given[column])) for column in columns]
        rows.append(f"| {op.method} `{op.path.removeprefix('/api/v1')}` | {' | '.join(cells)} |")
    heads = ["none", "wrong", "the other kind's", "another organisation's", "right"]
    return "\n".join([f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|", *rows]) + "\n"


def test_the_table_in_the_document_is_what_the_service_does(system: Whole) -> None:
    made = table(system)
    found = DOCUMENT.read_text().partition(START)[2].partition(END)[0]
    assert found == made, f"put this between the markers of {DOCUMENT.name}:\n{made}"


@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: f"{op.method} {op.path}")
def test_who_may_not_learns_nothing_and_who_may_is_answered(system: Whole, op: Operation) -> None:
    answers = {name: cell(*ask(system, op, given)) for name, given in credentials(system, op).items()}
    if op.credential == "none":
        assert set(answers.values()) == {str(op.status)}
        return
    assert answers["none"] == answers["wrong"] == UNAUTHORIZED
    assert answers["of the other kind"] == (FORBIDDEN if op.credential == "session" else UNAUTHORIZED)
    assert answers["right"].startswith(str(op.status))
    if "{id}" in op.path:
        assert answers["another"] == NOT_FOUND
    else:
        assert answers["another"].startswith(str(op.status))  # it has an organisation of its own


@pytest.mark.parametrize("op", [op for op in OPERATIONS if "{id}" in op.path], ids=lambda op: f"{op.method} {op.path}")
def test_what_is_another_organisations_looks_like_what_is_not_there(system: Whole, op: Operation) -> None:
    given = credentials(system, op)
    theirs = ask(system, op, given["another"])
    gone = op._replace(path=op.path.replace("{id}", STRANGER))
    assert ask(system, gone, given["right"]) == theirs


def test_the_markers_stand_in_the_document_once() -> None:
    text = DOCUMENT.read_text()
    assert [text.count(marker) for marker in (START, END)] == [1, 1]
    assert len(re.findall(r"\w+", text.partition(START)[0] + text.partition(END)[2])) < 1100, "two pages at most"
