"""The review graph and the store of its checkpoints.

intake -> sense_carbon -> assess -> decide -> transfer (back to assess) | defer -> wait (back to
sense_carbon) | explain -> clinician -> record. A transfer's result is at hand at once, so the
grid is read again only after a wait.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from agent.workflow import nodes
from agent.workflow.context import ReviewServices
from agent.workflow.state import CaseState, NodeOutput, Spent
from envs.catalogue import DEFER, FINALISE

BUSY_TIMEOUT_MS = 5000
NODES: tuple[str, ...] = (
    "intake", "sense_carbon", "assess", "decide", "transfer",
    "defer", "wait", "explain", "clinician", "record",
)  # fmt: skip

Node = Callable[[ReviewServices, CaseState], Awaitable[NodeOutput]]
CaseGraph = CompiledStateGraph[Any, Any, Any, Any]


def _bind(node: Node, services: ReviewServices) -> Callable[[CaseState], Awaitable[dict[str, Any]]]:
    """A LangGraph node: what was constructed is what was validated, and goes on as plain JSON."""

    async def run(state: CaseState) -> dict[str, Any]:
        output = await node(services, state)
        update = output.model_dump(mode="json", exclude_unset=True)
        return update | _counted(state, output)

    return run


def _counted(state: CaseState, output: NodeOutput) -> dict[str, Any]:
    """The running totals after a node, and nothing left over in what holds its step's entries."""
    spent = Spent.model_validate(state["spent"])
    for charge in output.charges:
        spent = spent.plus(charge)
    totals = {"steps": state["steps"] + len(output.events)}
    return totals | ({"spent": spent.model_dump(mode="json")} if output.charges else {})


def _after_decision(state: CaseState) -> str:
    action = state["choice"]["action"]
    return {FINALISE: "explain", DEFER: "defer"}.get(action, "transfer")


def build_graph(services: ReviewServices, saver: BaseCheckpointSaver[Any]) -> CaseGraph:
    """Compile the review graph over a checkpoint saver."""
    graph = StateGraph(CaseState)
    for name in NODES:
        graph.add_node(name, _bind(getattr(nodes, name), services))  # type: ignore[call-overload]
    graph.add_edge(START, "intake")
    graph.add_edge("intake", "sense_carbon")
    graph.add_edge("sense_carbon", "assess")
    graph.add_edge("assess", "decide")
    graph.add_conditional_edges("decide", _after_decision, ["transfer", "defer", "explain"])
    graph.add_edge("transfer", "assess")
    graph.add_edge("defer", "wait")
    graph.add_edge("wait", "sense_carbon")
    graph.add_edge("explain", "clinician")
    graph.add_edge("clinician", "record")
    graph.add_edge("record", END)
    return graph.compile(checkpointer=saver)


def strict_serializer() -> JsonPlusSerializer:
    """Msgpack that restores LangGraph's safe built-in types and nothing else.

    The state is plain JSON, so the explicit allow-list of own types is empty.
    """
    return JsonPlusSerializer(allowed_msgpack_modules=None, pickle_fallback=False)


def memory_saver() -> InMemorySaver:
    """A saver that forgets when the process ends, for one case on the command line."""
    return InMemorySaver(serde=strict_serializer())


@asynccontextmanager
async def sqlite_saver(path: Path) -> AsyncIterator[AsyncSqliteSaver]:
    """A durable saver in one SQLite file (write-ahead log, waits when the file is busy)."""
    async with aiosqlite.connect(path) as connection:
        await connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        # Survives the death of the process; after a power cut the last steps may run again,
        # which charges and events are keyed to bear.
        await connection.execute("PRAGMA synchronous=NORMAL")
        saver = AsyncSqliteSaver(connection, serde=strict_serializer())
        await saver.setup()
        yield saver
