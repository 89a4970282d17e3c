"""The review graph and the store of its checkpoints.

intake -> sense_carbon -> assess -> decide -> transfer (back to assess) | defer -> wait (back to
sense_carbon) | explain -> clinician -> record. A transfer's result is at hand at once, so the
grid is read again only after a wait or when a person sets something going.

The clinician may ask for a transfer (sense_carbon -> request -> transfer -> assess -> explain),
leave a modality out (sense_carbon -> assess -> decide -> ...), or need a second reviewer. A node
that fails for good leads to parked, where a person may have it tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypedDict

import aiosqlite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.errors import NodeError, NodeTimeoutError
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from agent.workflow import nodes, people
from agent.workflow.context import ReviewServices
from agent.workflow.faults import NodeLimits, parker
from agent.workflow.outputs import (
    NodeOutput,
)
from agent.workflow.state import (
    NOTHING_SPENT,
    OF_ONE_STEP,
    CaseState,
    Spent,
    next_seq,
)
from agent.workflow.steps import told_after
from envs.catalogue import DEFER, FINALISE

BUSY_TIMEOUT_MS = 5000
NEXT: dict[str, tuple[str, ...]] = {
    "intake": ("sense_carbon",),
    "sense_carbon": ("assess", "request"),
    "assess": ("decide", "explain"),
    "decide": ("explain", "defer", "transfer"),
    "transfer": ("assess",),
    "defer": ("wait",),
    "wait": ("sense_carbon",),
    "request": ("transfer", "clinician"),
    "explain": ("clinician",),
    "clinician": ("record", "second", "sense_carbon", "clinician"),
    "second": ("record", "second"),
    "parked": (),
    "record": (END,),
}
"""Which node may follow which; a parked case goes on wherever it failed."""
NODES: tuple[str, ...] = tuple(NEXT)
RESTS = ("wait", "clinician", "second", "parked")
"""Nodes that do nothing before somebody answers."""


class Thread(TypedDict):
    """The graph's one channel: a case's whole state, as its last step left it.

    LangGraph keeps a version, a row and a write for every channel that a step touches; with thirty
    of them that adds up, and nothing here is ever written by two nodes at once.
    """

    review: CaseState


Node = Callable[[ReviewServices, CaseState], Awaitable[NodeOutput]]
Step = Callable[[Thread], Awaitable[Command[Any]]]
CaseGraph = CompiledStateGraph[Any, Any, Any, Any]


def _after(name: str, state: Mapping[str, Any]) -> str:
    """The node that comes after one, from the state with what that node put out."""
    asked = state.get("asked") is not None
    if name == "sense_carbon":
        return "request" if asked else "assess"
    if name == "assess":
        return "explain" if asked else "decide"
    if name == "request":
        return "transfer" if asked else "clinician"
    if name == "decide":
        return {FINALISE: "explain", DEFER: "defer"}.get(state["choice"]["action"], "transfer")
    return str(state["onward"]) if name in ("clinician", "second", "parked") else NEXT[name][0]


def _bind(name: str, node: Node, services: ReviewServices, timeout_s: float) -> Step:
    """A LangGraph node: what was constructed is what was validated, and goes on as plain JSON.

    It says itself what comes next, which costs a fraction of what a conditional edge does; and it
    keeps its own time, because LangGraph's timeout takes two more tasks a step.
    """

    async def run(thread: Thread) -> Command[Any]:
        state = thread["review"]
        try:
            async with asyncio.timeout(timeout_s) as limit:
                output = await node(services, state)
        except TimeoutError:
            if not limit.expired():
                raise
            raise NodeTimeoutError(name, timeout_s, kind="run", run_timeout=timeout_s) from None
        after = _updated(state, output)
        return Command(update={"review": after}, goto=_after(name, after))

    return run


def _updated(state: CaseState, output: NodeOutput) -> dict[str, Any]:
    """The state after a node, as plain JSON: what it put out, and the running totals."""
    after: dict[str, Any] = {k: v for k, v in state.items() if k not in OF_ONE_STEP}
    after |= output.model_dump(mode="json", exclude_unset=True)
    after["next_event"] = next_seq(state) + len(output.events)
    told = told_after(after.get("events", ()))
    if told:
        after["told"] = [*state.get("told", []), *told]
    if output.charges:
        spent = Spent.model_validate(state.get("spent", NOTHING_SPENT))
        for charge in output.charges:
            spent = spent.plus(charge)
        after["spent"] = spent.model_dump(mode="json")
    return after


def _park(services: ReviewServices) -> Callable[..., Awaitable[Command[Any]]]:
    park = parker(services.clock)

    async def on_error(thread: Thread, error: NodeError) -> Command[Any]:
        state = thread["review"]
        return Command(update={"review": _updated(state, await park(state, error))}, goto="parked")

    return on_error


def build_graph(
    services: ReviewServices,
    saver: BaseCheckpointSaver[Any],
    limits: NodeLimits | None = None,
) -> CaseGraph:
    """Compile the review graph over a checkpoint saver.

    Args:
        services: what the nodes ask of the world.
        saver: where every step is kept.
        limits: how often and how long a node is tried; the defaults of :class:`NodeLimits`.
    """
    limits = limits or NodeLimits()
    graph = StateGraph(Thread)
    graph.set_node_defaults(retry_policy=limits.retry_policy(), error_handler=_park(services))
    for name, then in NEXT.items():
        work = getattr(people if hasattr(people, name) else nodes, name)
        graph.add_node(
            name,
            _bind(name, work, services, limits.timeout_s),  # type: ignore[call-overload]
            destinations=then or tuple(NEXT),
        )
    graph.add_edge(START, "intake")
    return graph.compile(checkpointer=saver)


class CheckpointSerializer(JsonPlusSerializer):
    """Msgpack without foreign types; of an error only its name is kept.

    An error's words may quote what it could not take, and checkpoints hold no patient's data.
    """

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Write a value."""
        return super().dumps_typed(type(obj).__name__ if isinstance(obj, BaseException) else obj)


def strict_serializer() -> JsonPlusSerializer:
    """Msgpack that restores LangGraph's safe built-in types and nothing else.

    The state is plain JSON, so the explicit allow-list of own types is empty.
    """
    return CheckpointSerializer(allowed_msgpack_modules=None, pickle_fallback=False)


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
