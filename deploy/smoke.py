"""Sends beacons through the stack of compose.yaml and checks what comes out: the funnel and Prometheus' sums, exactly.

`make up smoke`. Makes an organisation of its own, so it can be run again; the sums hold where nobody else sends.
"""
# ruff: noqa: T201

import json
import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import httpx

FILE = Path(__file__).parents[1] / "compose.yaml"
COMPOSE = [*shlex.split(os.environ.get("COMPOSE", "docker compose")), "-f", str(FILE)]
EDGE, READER, PROMETHEUS = "http://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.1:9090"
READY = {role: f"http://127.0.0.1:{port}/readyz" for role, port in (("edge", 9101), ("worker", 9102), ("reader", 9103))}
READY_SECONDS, COUNT_SECONDS = 120, 60
STEPS = ["Welcome", "Invite a colleague", "Done"]

# Sessions by how far they come: all three steps and the end; two, and dismissed at the second; the first step only.
FINISHED, DISMISSED, LEFT = 12, 7, 5
TOTALS = {
    "views": 24,
    "starts": 24,
    "sessions": 24,
    "uniqueUsers": 24,
    "completions": 12,
    "completionRate": 0.5,
    "dismissals": 7,
    "dismissRate": 0.2917,
    "skips": 0,
}
FUNNEL = [("Welcome", 24, 5, 0.2083), ("Invite a colleague", 19, 7, 0.3684), ("Done", 12, 0, 0.0)]
# A finished session is 8 events, a dismissed one 5, a left one 2; one beacon of 8 comes twice; one event names no flow.
COUNTED, DUPLICATES, REJECTED = 12 * 8 + 7 * 5 + 5 * 2, 8, 1
SUMS = {
    "accepted": "zenstep_events_accepted_total",
    "counted": 'zenstep_events_counted_total{topic="zenstep.events"}',
    "duplicate": 'zenstep_events_duplicate_total{topic="zenstep.events"}',
    "rejected": 'zenstep_events_rejected_total{topic="zenstep.events"}',
}
GROWTH = {
    "accepted": COUNTED + DUPLICATES + REJECTED,
    "counted": COUNTED,
    "duplicate": DUPLICATES,
    "rejected": REJECTED,
}

http = httpx.Client(timeout=10)


def main() -> None:
    wait("edge, worker and reader are ready", READY_SECONDS, readiness, dict.fromkeys(READY, "ready"))
    ready = datetime.now(UTC)
    wait("Prometheus sees all three", READY_SECONDS, lambda: targets(ready), dict.fromkeys(READY, "up"))
    before = sums(ready)
    organisation = zenstep("org", "create", f"Smoke {uuid.uuid4()}")["organisation_id"]
    key = zenstep("key", "create", "--org", organisation)["key"]
    user = str(uuid.uuid4())
    zenstep("member", "add", "--org", organisation, "--user", user)
    steps = [{"id": str(uuid.uuid4()), "name": name} for name in STEPS]
    flow: dict[str, Any] = {"id": str(uuid.uuid4()), "name": "Smoke", "steps": steps}
    import_flow(organisation, flow)
    token = zenstep("token", "--user", user, service="reader")["token"]

    bodies = beacons(flow)
    for body in [*bodies, bodies[0], [{"eventType": "view", "flowId": str(uuid.uuid4()), "sessionId": "lost"}]]:
        send(key, body)
    wait("Prometheus' sums", COUNT_SECONDS, lambda: {n: v - before[n] for n, v in sums(ready).items()}, GROWTH)
    wait("the funnel", COUNT_SECONDS, lambda: funnel(flow["id"], token), (TOTALS, FUNNEL))

    for name, sessions, dropped, rate in FUNNEL:
        print(f"{name:20} {sessions:4} sessions  {dropped:3} dropped off  {rate:6.1%}")
    print("  ".join(f"{name} {number}" for name, number in GROWTH.items()))
    print("smoke: ok")


def beacons(flow: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """One body a session."""
    welcome, invite, done = (step["id"] for step in flow["steps"])
    finished = [("view", None)] + [(kind, step) for step in (welcome, invite, done) for kind in ("view", "complete")]
    finished += [("complete", None)]
    dismissed = [("view", None), ("view", welcome), ("complete", welcome), ("view", invite), ("dismiss", invite)]
    left = [("view", None), ("view", welcome)]
    bodies = []
    for n, story in enumerate([finished] * FINISHED + [dismissed] * DISMISSED + [left] * LEFT):
        who = {"flowId": flow["id"], "sessionId": f"session-{n}", "userId": f"user-{n}@example.com"}
        events = [{"eventType": kind, "id": str(uuid.uuid4()), **who} for kind, _ in story]
        for event, (_, step) in zip(events, story, strict=True):
            if step is not None:
                event["stepId"] = step
        bodies.append(events)
    return bodies


def send(key: str, events: list[dict[str, Any]]) -> None:
    """As `navigator.sendBeacon(url, string)` does."""
    headers = {"Content-Type": "text/plain;charset=UTF-8"}
    body = json.dumps({"events": events})
    answer = http.post(f"{EDGE}/api/v1/events", params={"key": key}, content=body, headers=headers)
    if (answer.status_code, answer.text) != (202, f'{{"accepted":{len(events)}}}'):
        fail(f"a beacon was answered with {answer.status_code} {answer.text}")


def funnel(flow_id: str, token: str) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Of the analytics, what TOTALS and FUNNEL say."""
    answer = http.get(f"{READER}/api/v1/flows/{flow_id}/analytics", headers={"Authorization": f"Bearer {token}"})
    document = answer.raise_for_status().json()
    steps = [(s["name"], s["sessions"], s["dropOff"], s["dropOffRate"]) for s in document["steps"]]
    return {name: document["totals"][name] for name in TOTALS}, steps


def readiness() -> dict[str, str]:
    """Of each role, "ready" or what is wrong."""
    return {role: _readiness(address) for role, address in READY.items()}


def _readiness(address: str) -> str:
    try:
        answer = http.get(address).json()
    except httpx.HTTPError as error:
        return str(error)
    return "ready" if answer["ready"] else str(answer["problems"])


def targets(since: datetime) -> dict[str, str]:
    """Of each role, "up" where Prometheus has scraped it since then: what it has of earlier processes is history."""
    active = http.get(f"{PROMETHEUS}/api/v1/targets").raise_for_status().json()["data"]["activeTargets"]
    scraped = [target for target in active if datetime.fromisoformat(target["lastScrape"]) > since]
    return {target["labels"]["job"]: target["health"] for target in scraped if target["labels"]["job"] in READY}


def sums(since: datetime) -> dict[str, int]:
    """What Prometheus has of SUMS, scraped since then. A counter with labels is not there before its first event."""
    fresh = f"> {since.timestamp()}"
    return {name: query(f"sum({c} and timestamp({c}) {fresh}) or vector(0)") for name, c in SUMS.items()}


def query(promql: str) -> int:
    answer = http.get(f"{PROMETHEUS}/api/v1/query", params={"query": promql}).raise_for_status()
    return int(answer.json()["data"]["result"][0]["value"][1])


def zenstep(*arguments: str, service: str = "edge") -> dict[str, Any]:
    """The result of a `zenstep` command run inside the stack."""
    result: dict[str, Any] = json.loads(inside(service, ["zenstep", *arguments, "--json"]))
    return result


def import_flow(organisation: str, flow: dict[str, Any]) -> None:
    script = f"cat > /tmp/flow.json && zenstep flow import /tmp/flow.json --org {organisation}"
    inside("edge", ["sh", "-c", script], json.dumps(flow))


def inside(service: str, command: list[str], given: str = "") -> str:
    whole = [*COMPOSE, "exec", "-T", service, *command]
    done = subprocess.run(whole, check=False, input=given, capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wait(what: str, seconds: float, ask: Callable[[], Any], wanted: Any) -> None:
    """Asks until the answer is the one wanted."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = ask()
        except (httpx.HTTPError, ValueError) as error:
            found = f"{type(error).__name__}: {error}"
        if found == wanted:
            print(f"ok  {what}")
            return
        if time.monotonic() > deadline:
            fail(f"{what}: after {seconds} s found\n  {found}\nand not\n  {wanted}")
        time.sleep(0.5)


def fail(problem: str) -> NoReturn:
    print(f"smoke: FAILED: {problem}")
    sys.exit(1)


if __name__ == "__main__":
    main()
