"""Events whose key and body are at hand, from head to answer without a task: the limiter and the log call each step.

A task, its futures and its wakings are a quarter of what a request costs. Whatever is unusual before the first step is
left to the route's coroutine; what comes of a step is the same either way.
"""

import logging
import time

from backends.log import LogError
from ingest import answers, decode
from ingest.call import Answer, Call
from ingest.gate import within
from ingest.outcomes import Outcomes
from ingest.submit import ACCEPTED, Line, Submit
from schemas.limits import Verdict
from service.cycle import Cycle

log = logging.getLogger(__name__)


class Straight:
    """One request. Its steps never raise: who calls them has others to call."""

    __slots__ = ("_call", "_cycle", "_limits", "_line", "_outcomes", "_started", "_submit")

    def __init__(self, cycle: Cycle, call: Call, submit: Submit, outcomes: Outcomes) -> None:
        self._started = time.perf_counter()
        self._cycle = cycle
        self._call = call
        self._submit = submit
        self._outcomes = outcomes
        self._limits: Verdict | None = None
        self._line: Line | None = None

    def counted(self, verdict: Verdict | Exception) -> None:
        """The limiter has looked."""
        try:
            if isinstance(verdict, Exception):
                raise verdict
            call, submit = self._call, self._submit
            self._limits = within(verdict)
            line = self._line = submit.line(call, decode.decode(call.body_at_hand()))
            if line is None:
                answer = ACCEPTED[0]
            else:
                submit.log.hand_on(call.key.organisation, line.content, line.events, self._written)
                return
        except LogError as error:
            self._written(error)
            return
        except Exception as error:
            answer = self._outcomes.failed(error)
        self._end(answer)

    def _written(self, error: LogError | None) -> None:
        """The log has it, or not."""
        line = self._line
        assert line is not None
        if error is None:
            self._end(self._submit.accepted(line))
        else:
            self._cycle.spawn(self._rescue(error, line))

    async def _rescue(self, problem: LogError, line: Line) -> None:
        try:
            await self._submit.log.rescue(problem, self._call.key.organisation, line.content, line.events)
            answer = self._submit.accepted(line)
        except Exception as error:
            answer = self._outcomes.failed(error)
        self._end(answer)

    def _end(self, answer: Answer) -> None:
        headers = self._call.scope["headers"]
        try:
            answers.answer_at_once(self._cycle, answer.status, answer.body, answer.headers, self._limits, headers)
            self._outcomes.ended("POST", self._call, answer, self._started)
        except Exception:
            log.exception("request not answered")
            self._cycle.end_badly()
