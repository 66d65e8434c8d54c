"""The rate limits: requests a minute of one organisation, by bucket. Documented, but `analytics` and `strangers`."""

import msgspec

WINDOW_SECONDS = 60
LIMITS = {
    "events": 300,
    "heartbeat": 10,
    "flows": 60,
    "fingerprint": 30,
    "health": 60,
    "status": 10,
    "analytics": 60,  # ours
}
MAX_LIMIT = 10_000_000
STRANGERS = 60  # failed authentications a minute of one client address (ours)


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """How a request stands. `reset` is in epoch seconds; `retry_after` in whole seconds, 0 where it is within."""

    limit: int
    remaining: int
    reset: int
    retry_after: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Documented, on every answer; a refusal has Retry-After too, the same number as in its body."""
        told = [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % self.reset),
        ]
        return [(b"retry-after", b"%d" % self.retry_after), *told] if self.retry_after else told

    def lines(self) -> bytes:
        """The headers of a request that is within, as they go out."""
        return b"x-ratelimit-limit: %d\r\nx-ratelimit-remaining: %d\r\nx-ratelimit-reset: %d\r\n" % (
            self.limit,
            self.remaining,
            self.reset,
        )

    def body(self) -> bytes:
        """Of the 429 (documented)."""
        return b'{"error":"Rate limit exceeded","retryAfter":%d}' % self.retry_after


def bucket_key(organisation: str, bucket: str) -> str:
    """What the requests of an organisation's bucket are counted under."""
    return f"{organisation}:{bucket}"


def stranger_key(client: str) -> str:
    """What requests that are nobody's are counted under; `client` is a digest of the client's address."""
    return f"stranger:{client}"
