"""The circuit breaker: shut it lets everything through, open one now and then."""

from ingest.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_while_nothing_fails_everything_is_tried() -> None:
    breaker = Breaker()
    assert all(breaker.allows() for _ in range(100))
    assert not breaker.open


def test_after_a_failure_one_is_tried_after_each_pause_and_only_when_the_last_has_ended() -> None:
    clock = Clock()
    breaker = Breaker(pause=1.0, clock=clock)
    breaker.failed()
    assert breaker.open
    assert not breaker.allows()
    clock.now += 1.0
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    clock.now += 60.0
    assert not breaker.allows()  # the try is still under way
    breaker.failed()
    assert not breaker.allows()
    clock.now += 1.0
    assert breaker.allows()


def test_one_success_shuts_it() -> None:
    clock = Clock()
    breaker = Breaker(pause=1.0, clock=clock)
    breaker.failed()
    clock.now += 1.0
    assert breaker.allows()
    breaker.succeeded()
    assert not breaker.open
    assert all(breaker.allows() for _ in range(10))
