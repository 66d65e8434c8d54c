"""Whether a request comes from a known bot, by its User-Agent and a list that others keep: crawler-user-agents.

What a bot sends is marked in its envelope and counted like any other event (our decision): nothing is silently
dropped, and what the mark is good for may be decided when the numbers are read. A request without a User-Agent is no
known bot.
"""

from functools import lru_cache

from ingest.crawlers import is_crawler
from service.fields import Headers, values

MAX_LENGTH = 512
"""What is looked at: the list is long, and a browser says less."""


def is_bot(headers: Headers) -> bool:
    agents = values(headers, b"user-agent")
    return bool(agents) and _known(agents[0][:MAX_LENGTH])


@lru_cache(10_000)
def _known(user_agent: bytes) -> bool:
    return is_crawler(user_agent.decode("latin-1"))
