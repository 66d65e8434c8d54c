"""The list of crawler-user-agents, asked without a pattern for each of its 1,500 entries: most are plain text, and
making patterns of them all takes four times as long, at every start.
"""

import re

from crawleruseragents import CRAWLER_USER_AGENTS_DATA

_PLAIN = re.compile(r"(?:[^\\.^$*+?{}\[\]|()]|\\[^\w\s])+")


def plain(pattern: str) -> str | None:
    """The text that this pattern is; None where it is more than one."""
    return re.sub(r"\\(.)", r"\1", pattern) if _PLAIN.fullmatch(pattern) else None


_PATTERNS = {str(entry["pattern"]): plain(str(entry["pattern"])) for entry in CRAWLER_USER_AGENTS_DATA}
_TEXTS = [text for text in _PATTERNS.values() if text is not None]
_OTHERS = re.compile("|".join(pattern for pattern, text in _PATTERNS.items() if text is None))


def is_crawler(user_agent: str) -> bool:
    """As crawleruseragents' own."""
    return any(text in user_agent for text in _TEXTS) or _OTHERS.search(user_agent) is not None
