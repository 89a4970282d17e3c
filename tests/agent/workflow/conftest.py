"""A review that a test leads by the hand: acts, wakes, and what both brought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from langgraph.types import Command

from agent.policies.registry import make_policy
from agent.workflow.doubles import StillMonitor, replay_kit, row_features
from agent.workflow.graph import build_graph, memory_saver
from agent.workflow.run import RunResult, follow
from agent.workflow.state import new_case
from distill.evidence import EvidenceTable
from envs.toy import toy_evidence

NOON = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)


class Walk:
    """One case over one graph; the clock is the test's, and rounds are counted as a server does."""

    def __init__(self, services: Any, *, saver: Any = None, limits: Any = None) -> None:
        self.now = NOON
        self.services = replace(services, clock=lambda: self.now)
        self.graph = build_graph(self.services, saver or memory_saver(), limits)
        self.result = RunResult()
        self.rounds = 0

    def begin(self, policy: str, **case: Any) -> RunResult:
        return self._run(new_case("c", policy=policy, **case))

    def act(self, action: str, reviewer: str = "dr a", **fields: Any) -> RunResult:
        body = {"action": action, "reviewer": reviewer, "decided_at": self.now.isoformat()}
        answer = body | {"round": self.rounds} | fields
        self.rounds += 1
        return self._run(Command(resume=answer))

    def wake(self, **answer: Any) -> RunResult:
        return self._run(Command(resume=answer))

    def _run(self, entry: Any) -> RunResult:
        asyncio.run(follow(self.graph, "c", entry, result=self.result))
        return self.result

    @property
    def values(self) -> dict[str, Any]:
        return self.result.values

    @property
    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.result.events]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Data of all steps of a kind."""
        return [event["data"] for event in self.result.events if event["kind"] == kind]

    @property
    def stages(self) -> list[str]:
        return [charge.stage for charge in self.result.charges]


class DeferFirst:
    """Defers whatever may be deferred, else stops."""

    name = "defer-first"

    def __init__(self, catalogue: Any) -> None:
        self.catalogue = catalogue

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget."""

    def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
        may = action_mask[:, self.catalogue.defer]
        return np.where(may, self.catalogue.defer, self.catalogue.finalise).astype(np.int64)

    def reason(self, observation: np.ndarray, action: int) -> str:
        return "deferred for a test"


def any_policy(name: str, layout: Any, catalogue: Any) -> Any:
    if name == "defer-first":
        return DeferFirst(catalogue)
    return make_policy(name, layout, catalogue)


@pytest.fixture(scope="session")
def table() -> EvidenceTable:
    return toy_evidence(n_patients=80, seed=1)


@pytest.fixture(scope="session")
def full_row(table: EvidenceTable) -> int:
    return int(np.flatnonzero(table.present.all(axis=1))[0])


@pytest.fixture(scope="session")
def services_with(table: EvidenceTable, full_row: int) -> Callable[..., Any]:
    """Services over the table; fields of the services that differ are given by name."""
    monitor = StillMonitor(g_per_kwh=300.0, ahead=(250.0,) * 11 + (50.0,))

    def make(*, ahead: bool = False, **fields: Any) -> Any:
        kit = replay_kit(
            table, make_policy=any_policy, policy="defer-first",
            monitor=monitor if ahead else StillMonitor(),
        )  # fmt: skip

        async def prepared(case: str, without: frozenset[str]) -> Any:
            rows = row_features(table, full_row)
            return kit.student.prepare({m: None if m in without else r for m, r in rows.items()})

        made = kit.services(prepared=prepared, clock=lambda: NOON)
        return replace(made, **fields)

    return make


@pytest.fixture
def walk(services_with: Callable[..., Any]) -> Callable[..., Walk]:
    """Start a walk; see :class:`Walk` and ``services_with``."""

    def start(*, saver: Any = None, limits: Any = None, **fields: Any) -> Walk:
        return Walk(services_with(**fields), saver=saver, limits=limits)

    return start


@pytest.fixture(scope="session")
def hour() -> timedelta:
    return timedelta(hours=1)
