"""Planners at work on one live case: fitted to the bundle's patients, told what is known."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from agent.policies.plan_settings import KINDS
from agent.policies.registry import make_policy
from agent.workflow.context import situation
from agent.workflow.doubles import StillMonitor, replay_kit, row_features
from agent.workflow.graph import build_graph, memory_saver
from agent.workflow.kit import ReviewKit
from agent.workflow.opening import LIVE_WAIT_AUC, live_planner
from agent.workflow.run import RunResult, follow
from agent.workflow.state import new_case
from distill.evidence import EvidenceTable
from envs.toy import toy_evidence

AT = datetime.now(UTC).replace(minute=20, second=0, microsecond=0)
EVIDENCE = toy_evidence(n_patients=80, seed=1)
ROW = int(np.flatnonzero(EVIDENCE.present.all(axis=1) & (np.abs(EVIDENCE.logit[:, 0]) < 0.3))[0])


def kit_of(policy: str, evidence: EvidenceTable = EVIDENCE, **ahead: Any) -> ReviewKit:
    def make(name: str, layout: Any, catalogue: Any) -> Any:
        planned = name in KINDS
        return live_planner(name, evidence) if planned else make_policy(name, layout, catalogue)

    monitor = StillMonitor(**({"g_per_kwh": 300.0, "ahead": (300.0,) * 24} | ahead))
    return replay_kit(evidence, make_policy=make, policy=policy, monitor=monitor)


def review(kit: ReviewKit, policy: str) -> RunResult:
    async def prepared(case: str, without: Any = frozenset()) -> Any:
        return kit.student.prepare(row_features(EVIDENCE, ROW))

    async def run() -> RunResult:
        graph = build_graph(kit.services(prepared=prepared, clock=lambda: AT), memory_saver())
        return await follow(graph, "c", new_case("c", policy=policy))

    return asyncio.run(run())


@pytest.mark.parametrize("name", KINDS)
def test_a_server_offers_the_planners_and_they_decide(name: str) -> None:
    kit = kit_of("rule")
    assert kit.policies.check(name) == name
    acting = kit.policies.acting(name)
    assert acting.fallback_reason is None
    assert acting.policy.name == name
    result = review(kit, name)
    assert result.waits_for == "clinician"
    assert result.values["transfers_run"]


def test_a_planner_waits_for_clean_hours_ahead() -> None:
    kit = kit_of("mpc", g_per_kwh=600.0, ahead=(600.0,) * 5 + (20.0,) * 10)
    result = review(kit, "mpc")
    assert result.waits_for == "wait"
    assert review(kit, "feedback").waits_for == "clinician"


def test_a_live_case_waits_only_for_what_is_worth_it() -> None:
    """In replay an hour costs nothing; here somebody waits, and no slot is shared."""
    settings = live_planner("planner", EVIDENCE).settings
    assert settings.wait_gain == LIVE_WAIT_AUC
    assert type(settings)().wait_gain < LIVE_WAIT_AUC
    assert not settings.slots_bind
    assert not settings.queues


def test_the_observation_says_what_is_known_of_the_day() -> None:
    kit = kit_of("planner")

    async def prepared(case: str, without: Any = frozenset()) -> Any:
        return kit.student.prepare(row_features(EVIDENCE, ROW))

    services = kit.services(prepared=prepared, clock=lambda: AT)
    state = review(kit, "never").values | {"transfers_run": [], "processed": ["clinical"]}
    seen = situation(services, state, AT).observation[0]

    def value(name: str) -> float:
        return float(kit.layout.physical(seen, name))

    left, per_hour = value("cases_left"), kit.config.slots_per_hour
    assert left == kit.budget.cases_left(AT)
    assert (value("waiting"), value("to_come"), value("ahead")) == (1.0, left - 1.0, 0.0)
    assert value("slots_left_now") == per_hour
    assert value("slots_left") == per_hour * (1 + 24)
    assert value("time_left") == max(left / per_hour, value("slack_h"))
