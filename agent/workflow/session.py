"""Reviewing cases in this process, without a server: for the command line and batches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from langgraph.types import Command

from agent.workflow.errors import CaseNotWaitingError, WorkflowError
from agent.workflow.graph import CaseGraph, build_graph, memory_saver
from agent.workflow.kit import ReviewKit
from agent.workflow.nodes import WAIT
from agent.workflow.people import CLINICIAN, PARKED
from agent.workflow.protocols import Features
from agent.workflow.run import RunResult, follow
from agent.workflow.state import CaseState, Decision

AT_ONCE = "command"


class ReviewSession:
    """The same graph as the server's, over memory: nothing outlives the process."""

    def __init__(self, kit: ReviewKit, *, clock: Callable[[], datetime]) -> None:
        """Build the graph."""
        self._kit = kit
        self._features: dict[str, Features] = {}
        services = kit.services(prepared=self._prepared, clock=clock)
        self._graph: CaseGraph = build_graph(services, memory_saver())

    async def _prepared(self, case: str, without: frozenset[str]) -> Any:
        kept = {m: None if m in without else row for m, row in self._features[case].items()}
        return self._kit.student.prepare(kept)

    async def review(self, case: CaseState, features: Features) -> RunResult:
        """Carry a case to the clinician; a deferral is noted and not waited for.

        Raises:
            FeatureError: if the bundle cannot take the features.
            WorkflowError: if a step fails for good: here nobody is at hand to have it tried again.
        """
        self._kit.student.prepare(features)
        self._features[case["case"]] = features
        result = await follow(self._graph, case["case"], case)
        if result.waits_for == WAIT:
            woken: Command[Any] = Command(resume={"by": AT_ONCE})
            result = await follow(self._graph, case["case"], woken, result=result)
        if result.waits_for == PARKED:
            raise WorkflowError(result.values["failure"]["reason"])
        return result

    async def decide(self, case_id: str, result: RunResult, decision: Decision) -> RunResult:
        """Carry out a clinician's decision.

        Raises:
            CaseNotWaitingError: if the case does not wait for one.
        """
        if result.waits_for != CLINICIAN:
            raise CaseNotWaitingError("The case does not wait for a clinician's decision.")
        taken = decision.model_dump(mode="json", exclude_none=True)
        answer: Command[Any] = Command(resume=taken)
        return await follow(self._graph, case_id, answer, result=result)

    async def forget(self, case_id: str) -> None:
        """Drop what memory holds of a case, so that a long batch stays small."""
        self._features.pop(case_id, None)
        saver = self._graph.checkpointer
        if saver is not None and not isinstance(saver, bool):
            await saver.adelete_thread(case_id)
