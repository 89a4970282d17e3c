"""One run of the graph: from taking a case up to where it rests, and what that brought."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig

from agent.workflow.graph import CaseGraph
from agent.workflow.state import Charge


@dataclass(kw_only=True)
class RunResult:
    """What a run brought; absorbed step by step.

    Attributes:
        values: the latest value of each channel that was written.
        events: steps, in order.
        charges: energy spent.
        waits_for: the interrupt that the run rests at; None where it ended.
    """

    values: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    waits_for: str | None = None

    def absorb(self, output: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Take in a node's output; returns its new steps."""
        fresh: list[dict[str, Any]] = list(output.get("events", ()))
        self.events.extend(fresh)
        self.charges.extend(Charge.model_validate(c) for c in output.get("charges", ()))
        self.values.update({k: v for k, v in output.items() if k not in ("events", "charges")})
        return fresh


def thread(case_id: str) -> RunnableConfig:
    """LangGraph's configuration of a case."""
    return {"configurable": {"thread_id": case_id}}


async def follow(
    graph: CaseGraph,
    case_id: str,
    entry: Any,
    *,
    result: RunResult | None = None,
    on_steps: Callable[[list[dict[str, Any]]], None] | None = None,
) -> RunResult:
    """Run the graph from ``entry`` to its next rest, each step durable before the next.

    Args:
        graph: the compiled graph.
        case_id: the case's thread.
        entry: a first state, a ``Command(resume=...)``, or None to go on after a crash.
        result: what earlier runs brought; extended and returned.
        on_steps: told of each node's new steps.
    """
    result = result or RunResult()
    async for update in graph.astream(
        entry, thread(case_id), stream_mode="updates", durability="sync"
    ):
        for node, output in update.items():
            if node == "__interrupt__":
                result.waits_for = output[0].value["kind"]
            else:
                fresh = result.absorb(output or {})
                if on_steps is not None:
                    on_steps(fresh)
    return result
