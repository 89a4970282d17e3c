"""What happens when a node fails: tried again, then parked for a person with the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from langgraph.errors import NodeError, NodeTimeoutError
from langgraph.types import RetryPolicy

from agent.workflow.errors import WorkflowError
from agent.workflow.outputs import (
    ParkOutput,
)
from agent.workflow.state import (
    CaseState,
    Event,
    Failure,
    next_seq,
)
from carbon.errors import IntensityError

PASSING = (IntensityError, OSError, TimeoutError, NodeTimeoutError)
"""Errors that may be gone the next time; anything else would come again."""
QUOTABLE = (WorkflowError, IntensityError, NodeTimeoutError)
"""Errors whose words never hold a value of a patient's data."""


@dataclass(frozen=True, kw_only=True)
class NodeLimits:
    """How often and how long a node is tried before the case is parked.

    Attributes:
        attempts: tries in all.
        first_wait_s: pause after the first failure; doubles each time.
        longest_wait_s: no pause is longer.
        timeout_s: of one try, seconds. It ends what waits (a store, a provider); computing cannot
            be broken off, and what it gave late is still taken.
    """

    attempts: int = 3
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0
    timeout_s: float = 60.0

    def retry_policy(self) -> RetryPolicy:
        """As LangGraph takes it."""
        return RetryPolicy(
            initial_interval=self.first_wait_s,
            max_interval=self.longest_wait_s,
            max_attempts=self.attempts,
            jitter=False,
            retry_on=PASSING,
        )


def failure_of(error: NodeError) -> Failure:
    """What a person is told of an error.

    After a crash LangGraph knows an error by its name alone; the same goes for errors whose words
    might quote the patient's data.
    """
    what = error.error
    if isinstance(what, QUOTABLE):
        name, reason = type(what).__name__, str(what)
    else:
        name = type(what).__name__ if isinstance(what, BaseException) else str(what)
        reason = (
            f"{name} in step {error.node}; its words may quote the case's data and are not kept."
        )
    return Failure(node=error.node, error=name, reason=f"Step {error.node} failed: {reason}")


def parker(
    clock: Callable[[], datetime],
) -> Callable[[CaseState, NodeError], Awaitable[ParkOutput]]:
    """The handler of every node's errors: it writes down why the case waits for a person."""

    async def park(state: CaseState, error: NodeError) -> ParkOutput:
        failure = failure_of(error)
        event = Event(seq=next_seq(state), kind="parked", time=clock(), data=dict(failure))
        return ParkOutput(failure=failure, events=[event])

    return park
