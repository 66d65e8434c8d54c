"""POST /api/v1/events, from a good body to the 202: the hot path, in order."""

import time

import msgspec

from ingest import decode
from ingest.answers import Answer
from ingest.bots import is_bot
from ingest.call import Call
from ingest.durable import Durable
from ingest.privacy import anonymise, treatment
from schemas import records
from schemas.events import MAX_EVENTS, EventsRequest
from service import metrics

ACCEPTED = [Answer(202, b'{"accepted":%d}' % count) for count in range(MAX_EVENTS + 1)]


class Line(msgspec.Struct):
    """A request's events as they go into the log."""

    content: bytes
    events: int
    bot: bool


class Submit:
    """`line` and `accepted` are what comes before and after its being durable."""

    def __init__(self, hasher: decode.UserHasher, log: Durable) -> None:
        self._hasher = hasher
        self.log = log

    async def __call__(self, call: Call) -> Answer:
        return await self.take(call, decode.decode(await call.body()))

    async def take(self, call: Call, request: EventsRequest) -> Answer:
        """Events of whichever route."""
        line = self.line(call, request)
        if line is None:
            return ACCEPTED[0]
        await self.log.put(call.key.organisation, line.content, line.events)
        return self.accepted(line)

    def line(self, call: Call, request: EventsRequest) -> Line | None:
        """None where nothing of it is to be kept: the answer is ACCEPTED[0]."""
        count = len(request.events)
        metrics.events_received.inc(count)
        headers, key = call.scope["headers"], call.key
        asked = treatment(headers, key.privacy, count)
        if asked == "drop":
            return None
        now = time.time_ns() // 1_000_000
        envelope = decode.envelope(request, key.organisation, key.environment, now, self._hasher)
        if asked == "anonymous":
            anonymise(envelope)
        envelope.bot = is_bot(headers)
        return Line(records.encode(envelope), count, envelope.bot)

    def accepted(self, line: Line) -> Answer:
        """Of a line that is durable."""
        metrics.events_accepted.inc(line.events)
        if line.bot:
            metrics.events_bot.inc(line.events)
        return ACCEPTED[line.events]
