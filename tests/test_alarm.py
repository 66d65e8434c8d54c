"""An alarm that is set anew all the time goes off once, at the time that was set last, and not before."""

import asyncio
from collections.abc import Awaitable, Callable

from service.alarm import Alarm


class Loop:
    """A clock that is moved by hand, and the timers that were started on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.started = 0
        self.soon: list[tuple[Callable[..., object], ...]] = []
        self.sockets: Callable[[], object] | None = None  # what a look at them finds, behind what was ready before
        self._timers: list[tuple[float, Callable[[], object], asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, then: Callable[[], object]) -> asyncio.TimerHandle:
        self.started += 1
        handle = asyncio.TimerHandle(when, then, (), asyncio.get_running_loop())
        self._timers.append((when, then, handle))
        return handle

    def move_to(self, now: float) -> None:
        self.now = now
        due = [timer for timer in self._timers if timer[0] <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for _, then, handle in due:
            if not handle.cancelled():
                then()
        while self.soon:
            ready, self.soon = self.soon, []
            for call, *arguments in ready:
                call(*arguments)
            if self.sockets is not None:
                self.sockets()

    def call_soon(self, call: Callable[..., object], *arguments: object) -> None:
        self.soon.append((call, *arguments))


def situation(run: Callable[[Loop, Alarm, list[str]], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        async def within() -> None:
            loop = Loop()
            await run(loop, Alarm(loop), [])  # type: ignore[arg-type]

        asyncio.run(within())

    return test


@situation
async def test_it_goes_off_once_when_its_time_has_come(loop: Loop, alarm: Alarm, rung: list[str]) -> None:
    alarm.set(5, lambda: rung.append("a"))
    loop.move_to(4.9)
    assert rung == []
    loop.move_to(5)
    loop.move_to(50)
    assert rung == ["a"]


@situation
async def test_set_anew_it_forgets_what_was_set_before(loop: Loop, alarm: Alarm, rung: list[str]) -> None:
    alarm.set(5, lambda: rung.append("first"))
    for now in range(100):
        loop.move_to(now / 10)
        alarm.set(5, lambda: rung.append("last"))
    loop.move_to(14.8)
    assert rung == []
    loop.move_to(14.9)
    assert rung == ["last"]
    assert loop.started < 5, "a timer each time would be as dear as what it replaces"


@situation
async def test_an_earlier_time_is_kept_too(loop: Loop, alarm: Alarm, rung: list[str]) -> None:
    alarm.set(15, lambda: rung.append("late"))
    alarm.set(1, lambda: rung.append("early"))
    loop.move_to(1)
    loop.move_to(20)
    assert rung == ["early"]


@situation
async def test_put_off_it_waits_longer(loop: Loop, alarm: Alarm, rung: list[str]) -> None:
    alarm.set(1, lambda: rung.append("a"))
    alarm.put_off(3)
    alarm.put_off(2)
    loop.move_to(1)
    loop.move_to(2.9)
    assert rung == []
    loop.move_to(3)
    assert rung == ["a"]


@situation
async def test_what_came_while_the_loop_stood_still_puts_it_off_though_its_time_is_over(
    loop: Loop, alarm: Alarm, rung: list[str]
) -> None:
    alarm.set(1, lambda: rung.append("a"))
    loop.sockets = lambda: alarm.put_off(9)
    loop.move_to(7)
    loop.sockets = None
    loop.move_to(8.9)
    assert rung == []
    loop.move_to(9)
    assert rung == ["a"]


@situation
async def test_what_came_while_the_loop_stood_still_can_clear_it(loop: Loop, alarm: Alarm, rung: list[str]) -> None:
    alarm.set(1, lambda: rung.append("a"))
    loop.sockets = alarm.clear
    loop.move_to(7)
    loop.move_to(20)
    assert rung == []


@situation
async def test_cleared_or_closed_it_is_silent(loop: Loop, alarm: Alarm, rung: list[str]) -> None:
    alarm.set(1, lambda: rung.append("cleared"))
    alarm.clear()
    alarm.put_off(2)
    loop.move_to(3)
    alarm.set(1, lambda: rung.append("closed"))
    alarm.close()
    loop.move_to(10)
    assert rung == []
