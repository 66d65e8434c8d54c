"""How an answer tells of the rate limits, on every answer and on one that is over."""

import time

import httpx

TOLD = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


def standing(answer: httpx.Response) -> tuple[int, int, int]:
    """The status, and the limit and what is left of it. The three headers are on every answer, once each."""
    assert [len(answer.headers.get_list(name)) for name in TOLD] == [1, 1, 1], answer
    assert 0 < int(answer.headers["x-ratelimit-reset"]) - time.time() + 1 < 62
    return answer.status_code, int(answer.headers["x-ratelimit-limit"]), int(answer.headers["x-ratelimit-remaining"])


def over(answer: httpx.Response) -> bool:
    if answer.status_code != 429:
        return False
    seconds = answer.json()["retryAfter"]
    assert answer.content == b'{"error":"Rate limit exceeded","retryAfter":%d}' % seconds
    assert answer.headers.get_list("retry-after") == [str(seconds)] and 1 <= seconds <= 60
    assert answer.headers["content-type"] == "application/json"
    assert standing(answer)[2] == 0
    return True
