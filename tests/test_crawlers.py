"""The list of known bots gives the same answers as the package that it is of."""

import re

import crawleruseragents
import pytest

from ingest.crawlers import is_crawler, plain

LIST = crawleruseragents.CRAWLER_USER_AGENTS_DATA
BROWSERS = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Version/17.5 Mobile Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "",
]


def test_every_agent_of_the_list_and_what_is_like_it_is_judged_as_the_package_does() -> None:
    agents = [agent for entry in LIST for agent in entry["instances"]]
    assert len(agents) > 1000
    for agent in [*agents[::7], *(agent[:15] for agent in agents[::3]), *(agent.lower() for agent in agents[::11])]:
        assert is_crawler(agent) == crawleruseragents.is_crawler(agent), agent


@pytest.mark.parametrize("browser", BROWSERS)
def test_a_browser_is_none(browser: str) -> None:
    assert not is_crawler(browser)


def test_what_is_taken_for_text_matches_nothing_else() -> None:
    patterns = [entry["pattern"] for entry in LIST]
    texts = {pattern: text for pattern in patterns if (text := plain(pattern)) is not None}
    assert 0.9 * len(patterns) < len(texts) < len(patterns)
    for pattern, text in texts.items():
        assert re.fullmatch(pattern, text) and not re.search(pattern, text[:-1])
        assert not re.search(pattern, text.swapcase()) or text.swapcase() == text


MANY = ["a.b", "[wW]get", "^a", "a$", "a|b", "(a)", "a+", "a*", "a?", "a{2}", r"\w", r"\d", r"\bbot"]


@pytest.mark.parametrize("pattern", MANY)
def test_what_has_more_than_one_text_is_left_a_pattern(pattern: str) -> None:
    assert plain(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "text"), [(r"Googlebot\/", "Googlebot/"), (r"a\.b\(c", "a.b(c"), ("a-b c", "a-b c")]
)
def test_what_is_escaped_is_text(pattern: str, text: str) -> None:
    assert plain(pattern) == text
