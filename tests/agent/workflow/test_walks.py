"""Whatever people do to a case, in whatever order: what must always hold, holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.workflow.limits import SpendLimits
from carbon.budget import Budget

REVIEWERS = st.sampled_from(["dr a", "dr b", "dr c"])
REASON = st.sampled_from(["clinical_judgement", "other"])
TRANSFERS = ["genomics->pathology", "pathology->genomics", "clinical->genomics", "no->such"]
OF_THE_CASE = st.one_of(
    st.builds(lambda t: {"action": "request_transfer", "transfer": t}, st.sampled_from(TRANSFERS)),
    st.builds(
        lambda m: {"action": "mark_unreliable", "modality": m},
        st.sampled_from(["clinical", "genomics", "pathology", "radiomics"]),
    ),
    st.builds(lambda u: {"action": "raise_urgency", "urgency": u}, st.floats(0.1, 1.0)),
    st.just({"action": "retry"}),
)
DECIDING = st.one_of(
    st.just({"action": "accept"}),
    st.builds(
        lambda r, c: {"action": "override", "result": r, "reason_code": c},
        st.sampled_from(["negative", "positive"]),
        REASON,
    ),
    st.builds(lambda c: {"action": "send_back", "reason_code": c}, REASON),
)
ACTIONS = st.lists(st.tuples(OF_THE_CASE, REVIEWERS), max_size=4)
DECISIONS = st.lists(st.tuples(DECIDING, REVIEWERS), max_size=4)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    policy=st.sampled_from(["never", "always:genomics->pathology", "defer-first", "rule"]),
    acts=ACTIONS,
    decisions=DECISIONS,
    above=st.sampled_from([None, 0.0, 1.0]),
    hard=st.sampled_from([None, 100.0]),
)
def test_what_must_always_hold(
    walk: Callable[..., Any],
    policy: str,
    acts: list[tuple[dict[str, Any], str]],
    decisions: list[tuple[dict[str, Any], str]],
    above: float | None,
    hard: float | None,
) -> None:
    budgets = [Budget(period="day", soft_g_co2e=hard, hard_g_co2e=hard)] if hard else []
    case = walk(ahead=True, second_review_above=above)
    object.__setattr__(case.services, "limits", SpendLimits(budgets))
    case.now = datetime.now(case.now.tzinfo).replace(minute=20)
    case.begin(policy)
    urgency = 0.0
    for act, reviewer in [*acts, *decisions]:
        if case.result.ended:
            break
        if case.result.waits_for == "wait":
            case.wake(by="schedule")
        case.act(reviewer=reviewer, **act)
        check_steps(case)
        assert case.values.get("urgency", 0.0) >= urgency
        urgency = case.values.get("urgency", 0.0)
        assert case.values["answered"] == case.rounds
    check_evidence(case)
    check_carbon(case, hard)
    check_end(case, above)


def check_steps(case: Any) -> None:
    assert [event["seq"] for event in case.result.events] == list(range(len(case.kinds)))
    assert case.kinds.count("deferral") <= 1
    assert case.kinds.count("parked") == 0
    json.dumps(case.values, allow_nan=False)


def check_evidence(case: Any) -> None:
    values, source_of = case.values, case.services.source_of
    unreliable = set(values.get("unreliable", ()))
    assert not unreliable & {source_of[t] for t in values["transfers_run"]}
    assert not unreliable & set(values["assessment"]["processed"])
    assert not unreliable & set(values["present"])
    assert "clinical" in values["present"]
    assert len(set(values["transfers_run"])) == len(values["transfers_run"])
    if case.result.waits_for == "clinician":
        assert values["explanation"]["probability"] == values["assessment"]["probability"]


def check_carbon(case: Any, hard: float | None) -> None:
    assert len(set(case.stages)) == len(case.stages)
    spent = sum(charge.g_co2e or 0.0 for charge in case.result.charges)
    assert case.values["spent"]["g_co2e"] == pytest.approx(spent)
    if "explanation" in case.values:
        assert case.values["explanation"]["g_co2e"] == pytest.approx(spent)
    assert case.services.budget.spent_g_co2e(case.now) == pytest.approx(spent)
    paid = [c for c in case.result.charges if c.stage.startswith("transfer:") and c.energy_kwh]
    sources = [case.services.source_of[c.stage.removeprefix("transfer:")] for c in paid]
    assert len(set(sources)) == len(sources), "a pipeline is paid for once"
    if hard:
        assert sum(c.g_co2e or 0.0 for c in paid) <= hard


def check_end(case: Any, above: float | None) -> None:
    assert case.result.ended == ("record" in case.kinds)
    assert case.result.ended == (case.kinds.count("decision") == 1)
    if not case.result.ended:
        assert case.result.waits_for in ("wait", "clinician", "second")
        return
    outcome = case.values["outcome"]
    if outcome["status"] == "sent_back":
        assert outcome["result"] is None
        return
    assert outcome["result"] in ("negative", "positive")
    if case.values["explanation"]["second_review"]:
        *_, one, two = outcome["opinions"]
        assert one["reviewer"] != two["reviewer"]
        assert one["result"] == two["result"] == outcome["result"]
    else:
        assert above != 0.0
        assert outcome["opinions"] == []
