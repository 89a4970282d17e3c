"""What each action of a clinician does to a case, edge by edge."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from agent.workflow.limits import SpendLimits
from agent.workflow.people import needs_second
from carbon.budget import parse_budget
from distill.evidence import EvidenceTable

HALF = {"result": "positive", "reason_code": "clinical_judgement"}


def probability(table: EvidenceTable, row: int, transfers: list[str]) -> float:
    logit = float(table.logit[row, table.sets.index_of(transfers)])
    return float(1.0 / (1.0 + 2.718281828459045**-logit))


@pytest.fixture
def seen(walk: Callable[..., Any]) -> Any:
    """A case that stopped with clinical data alone and waits for the clinician."""
    case = walk()
    assert case.begin("never").waits_for == "clinician"
    return case


def test_a_requested_transfer_runs_and_the_agent_does_not_decide_again(
    seen: Any, table: EvidenceTable, full_row: int
) -> None:
    seen.now += timedelta(hours=2)
    result = seen.act("request_transfer", transfer="genomics->pathology")
    assert result.waits_for == "clinician"
    begun = ["intake", "carbon", "assessment", "choice", "explanation"]
    assert seen.kinds == [*begun, "carbon", "request", "transfer", "assessment", "explanation"]
    assert seen.values["transfers_run"] == ["genomics->pathology"]
    (asked,) = seen.told("request")
    kwh = float(table.pipeline_kwh[1]) + float(table.transfer_kwh[0])
    assert asked["refused"] is None
    assert asked["energy_kwh"] == pytest.approx(kwh)
    assert asked["g_co2e"] == pytest.approx(200.0 * kwh)
    (moved,) = seen.told("transfer")
    assert moved["asked_by"] == "dr a"
    assert moved["charge"]["g_co2e"] == pytest.approx(200.0 * float(table.pipeline_kwh[1]))
    first, last = seen.told("assessment")
    assert first["probability_before"] is None
    assert last["probability_before"] == first["probability"]
    assert last["probability"] == pytest.approx(
        probability(table, full_row, ["genomics->pathology"])
    )
    assert seen.values["explanation"]["probability"] == last["probability"]
    assert seen.stages == ["inference:0", "transfer:genomics->pathology", "inference:1"]
    assert seen.values["asked"] is None


@pytest.mark.parametrize(
    ("transfer", "why"),
    [("a->b", "no transfer 'a->b'"), ("genomics->pathology", "has been run")],
)
def test_a_request_that_cannot_be_met_says_why_and_goes_back(
    walk: Callable[..., Any], transfer: str, why: str
) -> None:
    case = walk()
    case.begin("always:genomics->pathology")
    spent = list(case.stages)
    assert case.act("request_transfer", transfer=transfer).waits_for == "clinician"
    assert why in case.told("request")[0]["refused"]
    assert case.stages == spent
    assert case.act("accept").values["outcome"]["status"] == "recorded"


def test_a_hard_limit_holds_for_a_requested_transfer(walk: Callable[..., Any]) -> None:
    case = walk(limits=None)
    kept = SpendLimits([parse_budget("day:50:100")])
    object.__setattr__(case.services, "limits", kept)
    case.begin("never")
    case.act("request_transfer", transfer="genomics->pathology")
    (asked,) = case.told("request")
    assert asked["refused"].startswith("Hard limit of the day")
    assert "100 allowed" in asked["refused"]
    assert asked["refused"].endswith("it is refused.")
    assert case.values["transfers_run"] == []
    assert case.result.waits_for == "clinician"
    (day,) = kept.status(case.now)
    assert day.spent_g_co2e < 1.0


def test_a_soft_limit_flags_a_requested_transfer(walk: Callable[..., Any]) -> None:
    case = walk()
    object.__setattr__(case.services, "limits", SpendLimits([parse_budget("day:1:1e9")]))
    case.begin("never")
    case.act("request_transfer", transfer="genomics->pathology")
    (asked,) = case.told("request")
    assert asked["refused"] is None
    assert asked["note"].endswith("a clinician asked for it and it goes on, flagged.")
    assert case.values["transfers_run"] == ["genomics->pathology"]
    assert case.values["limit_notes"] == [asked["note"]]


def test_a_modality_that_is_not_trusted_is_left_out_and_nothing_is_paid_twice(
    walk: Callable[..., Any], table: EvidenceTable, full_row: int
) -> None:
    case = walk()
    case.begin("always-everything")
    before = case.stages
    run = case.values["transfers_run"]
    assert any(t.startswith("genomics->") for t in run)
    assert any(t.startswith("pathology->") for t in run)
    case.act("mark_unreliable", modality="genomics")
    assert case.result.waits_for == "clinician"
    kept = [t for t in run if not t.startswith("genomics->")]
    (marked,) = case.told("unreliable")
    assert marked["transfers_dropped"] == [t for t in run if t.startswith("genomics->")]
    assert case.values["transfers_run"] == kept
    assert case.values["present"] == ["clinical", "pathology"]
    assert case.values["unreliable"] == ["genomics"]
    assert "genomics" not in case.values["assessment"]["processed"]
    last = case.told("assessment")[-1]
    assert last["probability"] == pytest.approx(probability(table, full_row, kept))
    # Pathology's pipeline is behind the case: only scoring again is charged.
    assert case.stages[len(before) :] == [f"inference:{len(run) + 1}"]
    assert len(set(case.stages)) == len(case.stages)
    case.act("request_transfer", transfer="genomics->pathology")
    assert "marked as unreliable" in case.told("request")[-1]["refused"]


@pytest.mark.parametrize("modality", ["clinical", "radiomics"])
def test_what_cannot_be_left_out_is_refused(seen: Any, modality: str) -> None:
    seen.act("mark_unreliable", modality=modality)
    assert seen.told("unreliable") == []
    assert seen.told("request")[0]["refused"]
    assert seen.result.waits_for == "clinician"


def test_urgency_only_rises_and_the_case_waits_on(seen: Any) -> None:
    assert seen.act("raise_urgency", urgency=0.7).waits_for == "clinician"
    assert seen.act("raise_urgency", urgency=0.5).waits_for == "clinician"
    (raised,) = seen.told("urgency")
    assert (raised["before"], raised["urgency"]) == (0.0, 0.7)
    assert "can only be raised" in seen.told("request")[0]["refused"]
    assert seen.values["urgency"] == 0.7
    assert seen.values["answered"] == 2


def test_an_action_that_is_not_open_is_refused_out_loud(seen: Any) -> None:
    assert seen.act("retry").waits_for == "clinician"
    assert "not open" in seen.told("request")[0]["refused"]


def test_send_back_ends_the_case_without_a_result(seen: Any) -> None:
    result = seen.act("send_back", reason_code="missing_data")
    assert result.ended
    assert result.values["outcome"]["status"] == "sent_back"
    assert result.values["outcome"]["result"] is None


def test_entropy_decides_who_needs_a_second_reviewer() -> None:
    assert not needs_second(0.5, None)
    assert needs_second(0.5, 0.99)
    assert not needs_second(0.5, 1.0)
    # 0.11 has an entropy of 0.4999 bits.
    assert not needs_second(0.11, 0.5)
    assert needs_second(0.1101, 0.4999)
    assert not needs_second(1.0, 0.0)


@pytest.fixture
def unsure(walk: Callable[..., Any]) -> Any:
    case = walk(second_review_above=0.0)
    case.begin("never")
    assert case.values["explanation"]["second_review"] is True
    return case


def test_two_reviewers_who_agree_record_the_case(unsure: Any) -> None:
    suggested = unsure.values["explanation"]["suggestion"]
    assert unsure.act("accept").waits_for == "second"
    assert unsure.told("decision") == []
    result = unsure.act("override", "dr b", result=suggested, reason_code="clinical_judgement")
    assert result.ended
    assert result.values["outcome"]["result"] == suggested
    assert [o["reviewer"] for o in result.values["outcome"]["opinions"]] == ["dr a", "dr b"]
    assert [o["agrees"] for o in unsure.told("opinion")] == [None, True]
    assert unsure.kinds[-4:] == ["opinion", "opinion", "decision", "record"]


def test_reviewers_who_differ_wait_until_two_in_a_row_agree(unsure: Any) -> None:
    suggested = unsure.values["explanation"]["suggestion"]
    other = "positive" if suggested == "negative" else "negative"
    unsure.act("accept")
    unsure.act("override", "dr b", result=other, reason_code="clinical_judgement")
    assert unsure.result.waits_for == "second"
    assert len(unsure.values["opinions"]) == 2
    # The same reviewer saying it again is no second opinion.
    unsure.act("override", "dr b", result=other, reason_code="clinical_judgement")
    assert unsure.result.waits_for == "second"
    result = unsure.act("override", result=other, reason_code="new_information")
    assert result.ended
    assert result.values["outcome"]["result"] == other


def test_either_reviewer_may_send_it_back(unsure: Any) -> None:
    unsure.act("accept")
    result = unsure.act("send_back", "dr a", reason_code="wrong_data")
    assert result.values["outcome"]["status"] == "sent_back"


def test_a_sure_case_needs_one_reviewer(walk: Callable[..., Any]) -> None:
    case = walk(second_review_above=1.0)
    case.begin("never")
    assert case.values["explanation"]["second_review"] is False
    assert case.act("accept").ended


def test_raised_urgency_wakes_a_deferred_case_once_and_for_all(
    walk: Callable[..., Any], hour: timedelta
) -> None:
    case = walk(ahead=True)
    case.now = datetime.now(case.now.tzinfo).replace(minute=20)
    case.begin("defer-first")
    assert case.result.waits_for == "wait"
    case.now += hour
    result = case.wake(by="dr a", urgency=0.9, round=0)
    assert result.waits_for == "clinician"
    after = case.kinds[case.kinds.index("deferral") :]
    assert after[:5] == ["deferral", "wake", "urgency", "carbon", "assessment"]
    assert case.told("wake") == [{"by": "dr a", "early": True}]
    assert case.told("urgency")[0]["urgency"] == 0.9
    assert case.values["urgency"] == 0.9
    assert case.values["answered"] == 1
    assert case.kinds.count("deferral") == 1
    assert len(case.told("choice")) == 2
    defer = next(o for o in case.told("choice")[1]["options"] if o["action"] == "defer")
    assert not defer["allowed"]
    assert case.values["plan"] is None


def test_a_case_that_a_clinician_has_seen_is_not_put_off(walk: Callable[..., Any]) -> None:
    case = walk(ahead=True)
    case.now = datetime.now(case.now.tzinfo).replace(minute=20)
    case.begin("never")
    deferring = case.services.policies.acting("defer-first")
    case.services.policies._loaded["never"] = deferring
    case.act("mark_unreliable", modality="genomics")
    assert case.result.waits_for == "clinician"
    assert "deferral" not in case.kinds
    assert case.told("choice")[-1]["policy"] == "defer-first"
