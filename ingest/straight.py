"""Events whose key and body are at hand, from head to answer without a task: the limiter and the log call each step.

A task, its futures and its wakings are a tenth to a fifth of what a request costs. Whatever is unusual before the first
step is left to the route's coroutine; what comes of a step is the same either way.
"""

import asyncio
import logging
import time

from ingest import decode
from ingest.answers import Answer, answer_at_once
from ingest.call import Call
from ingest.gate import within
from ingest.outcomes import Outcomes
from ingest.submit import ACCEPTED, Line, Submit
from schemas.limits import Verdict
from service.cycle import Cycle

log = logging.getLogger(__name__)


class Straight:
    """One request. To be held by its connection as a task is, until it lets go of itself."""

    __slots__ = ("_call", "_cancelled", "_cycle", "_limits", "_line", "_outcomes", "_started", "_submit")

    def __init__(self, cycle: Cycle, call: Call, submit: Submit, outcomes: Outcomes) -> None:
        self._started = time.perf_counter()
        self._cycle = cycle
        self._call = call
        self._submit = submit
        self._outcomes = outcomes
        self._limits: Verdict | None = None
        self._line: Line | None = None
        self._cancelled = False

    def cancel(self, msg: object = None) -> None:
        """It has taken too long, and the process ends. What is written all the same counts."""
        self._cancelled = True
        asyncio.get_running_loop().call_soon(self._give_up)

    def _give_up(self) -> None:
        if not self._cycle.response_complete:
            self._cycle.end_badly()

    def counted(self, verdict: Verdict | Exception) -> None:
        """The limiter has looked, or could not."""
        if self._cancelled:
            self._cycle.let_go(self)
            return
        if isinstance(verdict, Exception):
            self._end(self._outcomes.failed(verdict))
            return
        call, submit = self._call, self._submit
        try:
            self._limits = within(verdict)
            line = self._line = submit.line(call, decode.decode(call.body_at_hand()))
            if line is not None:
                submit.log.hand_on(call.key.organisation, line.content, line.events, self._written)
                return
            answer = ACCEPTED[0]
        except Exception as error:
            answer = self._outcomes.failed(error)
        self._end(answer)

    def _written(self, error: Exception | None) -> None:
        """The log has it, or not."""
        line = self._line
        assert line is not None
        if error is None:
            self._end(self._submit.accepted(line))
        elif self._cancelled:
            self._cycle.let_go(self)
        else:
            self._cycle.spawn(self._rescue(error, line))

    async def _rescue(self, problem: Exception, line: Line) -> None:
        try:
            await self._submit.log.rescue(problem, self._call.key.organisation, line.content, line.events)
            answer = self._submit.accepted(line)
        except asyncio.CancelledError:
            self._cycle.let_go(self)
            raise
        except Exception as error:
            answer = self._outcomes.failed(error)
        self._end(answer)

    def _end(self, answer: Answer) -> None:
        self._cycle.let_go(self)
        if self._cycle.response_complete:
            return  # it was cancelled meanwhile
        try:
            answer_at_once(self._cycle, answer, self._limits, self._call.scope["headers"])
        except Exception:
            log.exception("request not answered")
            self._cycle.end_badly()
            return
        self._outcomes.ended(self._call.scope["method"], self._call, answer, self._started)
