"""Every step of a real run told from its event alone, and what the explanation holds of it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
import pytest

from agent.errors import PolicyError
from agent.policies.registry import make_policy
from agent.workflow.doubles import StillMonitor, replay_kit, row_features
from agent.workflow.errors import WorkflowError
from agent.workflow.session import ReviewSession
from agent.workflow.state import Decision, EventKind, Explanation, new_case
from agent.workflow.steps import TELLERS, request_line, step_lines, told_after
from agent.workflow.told import AxisTried
from envs.toy import toy_evidence

NOON = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)
TABLE = toy_evidence(n_patients=120, seed=3)
ROW = int(np.flatnonzero(TABLE.present.all(axis=1))[0])


def reviewed(policy: str, *, shadow: tuple[str, ...] = (), ahead: tuple[float, ...] = ()) -> Any:
    kit = replay_kit(
        TABLE,
        make_policy=make_policy,
        policy=policy,
        monitor=StillMonitor(ahead=ahead),
        shadow=shadow,
    )
    session = ReviewSession(kit, clock=lambda: NOON)

    async def go() -> Any:
        case = new_case("case-4711", policy=policy)
        result = await session.review(case, row_features(TABLE, ROW))
        decision = Decision(action="accept", reviewer="dr a", decided_at=NOON)
        return await session.decide("case-4711", result, decision)

    return asyncio.run(go())


@pytest.fixture(scope="module")
def result() -> Any:
    return reviewed("always-everything", shadow=("never", "price"))


def data_of(result: Any, kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in result.events if event["kind"] == kind]


def test_every_step_of_a_run_is_told(result: Any) -> None:
    for event in result.events:
        stored = json.loads(json.dumps(event))
        lines = step_lines(stored)
        assert lines, event["kind"]
        assert all(line and line == line.strip() for line in lines)
        assert "case-4711" not in " ".join(lines)


def test_first_sentences_say_what_happened(result: Any) -> None:
    first = {event["kind"]: step_lines(event)[0] for event in reversed(result.events)}
    assert first["intake"].startswith("The case has clinical, genomics, pathology")
    assert first["carbon"].startswith("The grid is at 200 gCO2e/kWh (estimated; still")
    assert first["assessment"].startswith("Probability of the positive class ")
    assert first["choice"].startswith("Policy always-everything chose ")
    assert first["transfer"].startswith("Ran ")
    assert first["explanation"].startswith("Suggests ")
    assert first["decision"] == "Accepted by dr a."
    assert first["record"].endswith("Research use only.")


def test_a_choice_is_told_with_options_budget_price_and_what_would_have_changed_it() -> None:
    data = data_of(reviewed("price"), "choice")[0]
    text = " ".join(step_lines({"kind": "choice", "data": data}))
    for words in ("predicted gain", "kWh", "gCO2e", "Also open:", "Not open: defer",
                  "the day's budget", "trained with a unit of AUC at", "changed it"):  # fmt: skip
        assert words in text
    assert {axis["axis"] for axis in data["changes"]} == {
        "grid", "budget", "urgency", "deadline", "probability", "price",
    }  # fmt: skip


def test_the_explanation_holds_the_run(result: Any) -> None:
    told = Explanation.model_validate(result.values["explanation"])
    choices, transfers = data_of(result, "choice"), data_of(result, "transfer")
    assert len(told.steps) == len(choices) + len(transfers)
    assert told.steps == told_after(result.events)
    assert told.changes == [AxisTried.model_validate(c) for c in choices[-1]["changes"]]
    assert 0.0 <= (told.uncertainty_bits or 0.0) <= 1.0
    assert told.peers is not None
    assert told.peers.evidence_set.count("->") == len(transfers)
    assert told.watched is not None
    assert told.watched.present == ["clinical", "genomics", "pathology"]
    text = " ".join(told.lines)
    assert "Patients like this one in validation" in text
    assert "The last choice was finalise." in told.lines
    assert "Uncertainty " in text


def test_silent_policies_are_kept_and_shown_nowhere(result: Any) -> None:
    decisions = [event["seq"] for event in result.events if event["kind"] == "choice"]
    assert [(s["seq"], s["policy"]) for s in result.shadow] == [
        (seq, policy) for seq in decisions for policy in ("never", "price")
    ]
    assert {s["action"] for s in result.shadow if s["policy"] == "never"} == {"finalise"}
    assert result.shadow[0]["data"]["acting_action"] == data_of(result, "choice")[0]["action"]
    shown = json.dumps([result.events, result.values["explanation"]])
    assert '"never"' not in shown
    assert "shadow" not in shown
    alone = reviewed("always-everything")
    assert alone.shadow == []
    assert data_of(alone, "choice") == data_of(result, "choice")


def test_silent_policies_need_names_of_their_own() -> None:
    def twin(name: str, layout: Any, catalogue: Any) -> Any:
        return make_policy("never", layout, catalogue)

    with pytest.raises(WorkflowError, match="called alike"):
        replay_kit(TABLE, make_policy=twin, shadow=("a", "b"))
    with pytest.raises(PolicyError, match="nonsense"):
        replay_kit(TABLE, make_policy=make_policy, shadow=("nonsense",))


def test_a_wait_is_told_with_its_plan() -> None:
    lines = step_lines({
        "kind": "deferral",
        "data": {"wake_at": "2026-03-01T15:00:00Z", "intensity_expected_g_per_kwh": 80.0,
                 "intensity_now_g_per_kwh": 200.0, "why": "It is cleaner then."},
    })  # fmt: skip
    assert lines == [
        "Put off for cleaner electricity, until 2026-03-01 15:00 UTC: 80 gCO2e/kWh are expected "
        "then, 200 are met now.",
        "It is cleaner then.",
    ]
    woken = {"kind": "wake", "data": {"by": "dr b", "early": True}}
    assert step_lines(woken) == ["Looked at again, earlier than planned: woken by dr b."]
    due = {"kind": "wake", "data": {"by": "schedule", "early": False}}
    assert step_lines(due) == ["Looked at again: the planned hour has come."]


ASKED = {"action": "request_transfer", "transfer": "clinical->genomics", "reviewer": "dr b",
         "reason_code": "clinical_judgement", "comment": "please"}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("request", ASKED, "clinical->genomics was asked for by dr b (clinical judgement)."),
        ("request", ASKED | {"refused": "It cannot."},
         "Request transfer by dr b was refused: It cannot."),
        ("request", {"action": "retry", "node": "assess", "reviewer": "dr b"},
         "Tried again at step assess by dr b."),
        ("unreliable", {"modality": "genomics", "reviewer": "dr b", "reason_code": "data_quality",
                        "transfers_dropped": ["genomics->pathology"]},
         "genomics was marked as unreliable and left out by dr b (data quality)."),
        ("urgency", {"urgency": 0.9, "reviewer": "dr b", "before": 0.1},
         "Urgency was raised to 0.9 by dr b."),
        ("parked", {"node": "assess", "error": "X", "reason": "Step assess failed: why."},
         "Parked: a person has to look. Step assess failed: why."),
        ("opinion", {"reviewer": "dr b", "result": "positive", "agrees": False, "needed": 2},
         "Opinion by dr b: positive; unlike the opinion before."),
        ("opinion", {"reviewer": "dr b", "result": "positive", "agrees": None, "needed": 2},
         "Opinion by dr b: positive; another reviewer has to agree."),
        ("decision", {"action": "override", "result": "negative", "reviewer": "dr b",
                      "reason_code": "new_information"},
         "Overridden with negative by dr b (new information)."),
        ("record", {"status": "sent_back", "result": None},
         "Closed without a result: the case went back to whoever posted it."),
    ],
)  # fmt: skip
def test_what_people_do_is_told(kind: str, data: dict[str, Any], words: str) -> None:
    assert step_lines({"kind": kind, "data": data})[0] == words


def test_figures_of_a_request_and_what_was_dropped_follow() -> None:
    request = ASKED | {"energy_kwh": 2.0, "g_co2e": 400.0, "note": "near the limit"}
    assert step_lines({"kind": "request", "data": request})[1:] == [
        "It takes 2 kWh, 400 gCO2e now.", "Carbon limit: near the limit", "Comment: please",
    ]  # fmt: skip


def test_old_events_and_unknown_kinds_are_borne() -> None:
    bare = {"action": "finalise", "reason": "r.", "policy": "rule"}
    assert step_lines({"kind": "choice", "data": bare})[0] == "Policy rule chose finalise."
    assert step_lines({"kind": "something new", "data": {}}) == []
    assert request_line({}) == "Urgency was raised to 0."


def test_unmeasured_energy_is_said_to_be() -> None:
    charge = {"energy_kwh": None, "reason": "no counter"}
    view = {"probability": 0.5, "charge": charge}
    assert "Energy not known: no counter." in step_lines({"kind": "assessment", "data": view})


def test_every_kind_of_event_has_a_teller() -> None:
    assert set(get_args(EventKind)) <= set(TELLERS)
