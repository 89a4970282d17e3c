"""One run of the graph: from taking a case up to where it rests, and what that brought."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from agent.workflow.graph import CaseGraph
from agent.workflow.state import OF_ONE_STEP, Charge

CACHED = "__metadata__"
"""Beside an update that LangGraph had stored before a crash and hands on without a new run."""


@dataclass(kw_only=True)
class RunResult:
    """What a run brought; absorbed step by step.

    Attributes:
        values: the state as the last step left it, without what belongs to one step.
        events: steps, in order.
        charges: energy spent.
        shadow: what silent policies would have done.
        waits_for: the interrupt that the run rests at; None where it ended or was cut short.
        ended: whether the graph has nothing more to do.
    """

    values: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    shadow: list[dict[str, Any]] = field(default_factory=list)
    waits_for: str | None = None
    ended: bool = False

    def absorb(self, output: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Take in a node's output; returns its new steps."""
        fresh: list[dict[str, Any]] = list(output.get("events", ()))
        self.events.extend(fresh)
        self.charges.extend(Charge.model_validate(c) for c in output.get("charges", ()))
        self.shadow.extend(output.get("shadow", ()))
        self.values.update({k: v for k, v in output.items() if k not in OF_ONE_STEP})
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
    result.waits_for, result.ended = None, False
    first = {"review": entry} if isinstance(entry, dict) else entry
    async for update in graph.astream(
        first, thread(case_id), stream_mode="updates", durability="sync"
    ):
        for node, output in update.items():
            if node == "__interrupt__":
                result.waits_for = output[0].value["kind"]
            elif node != CACHED:
                fresh = result.absorb((output or {}).get("review", {}))
                if on_steps is not None:
                    on_steps(fresh)
    result.ended = result.waits_for is None
    return result


async def recover(graph: CaseGraph, case_id: str) -> RunResult:
    """What all runs of a case brought so far, from its checkpoints alone: after a crash.

    Each checkpoint holds what its step added, so they are read from the first to the last; a step
    or stage that several of them still hold counts once. ``values`` is empty for an unknown case.
    """
    snapshots = await _lineage(graph, case_id)
    result = RunResult()
    if not snapshots:
        return result
    events: dict[int, dict[str, Any]] = {}
    charges: dict[str, dict[str, Any]] = {}
    shadow: dict[tuple[int, str], dict[str, Any]] = {}
    for values in (snapshot.values.get("review", {}) for snapshot in reversed(snapshots)):
        events.update((event["seq"], event) for event in values.get("events", ()))
        charges.update((charge["stage"], charge) for charge in values.get("charges", ()))
        shadow.update(((s["seq"], s["policy"]), s) for s in values.get("shadow", ()))
    latest = snapshots[0]
    result.absorb({
        **latest.values.get("review", {}),
        "events": [event for _, event in sorted(events.items())],
        "charges": list(charges.values()),
        "shadow": list(shadow.values()),
    })  # fmt: skip
    result.ended = bool(result.values) and not latest.next
    if latest.interrupts:
        result.waits_for = latest.interrupts[0].value["kind"]
    return result


async def _lineage(graph: CaseGraph, case_id: str) -> list[StateSnapshot]:
    """The latest checkpoint and its ancestors; of two runs at once only the later one's count."""
    line: list[StateSnapshot] = []
    async for snapshot in graph.aget_state_history(thread(case_id)):
        if not line or _checkpoint(line[-1].parent_config) == _checkpoint(snapshot.config):
            line.append(snapshot)
    return line


def _checkpoint(config: RunnableConfig | None) -> str | None:
    return config["configurable"]["checkpoint_id"] if config else None
