from __future__ import annotations

from dataclasses import replace

import pytest

from agent.policies.registry import make_policy
from agent.workflow.doubles import replay_kit
from agent.workflow.explain import explain_case, uncertainty_bits
from agent.workflow.rephrase import sendable
from agent.workflow.state import AssessmentRecord, CaseState, Explanation
from agent.workflow.steps import step_lines
from envs.toy import toy_evidence

OLD_VIEW = {
    "probability": 0.8, "logit": 1.4, "disagreement": 0.3, "processed": ["clinical", "genomics"],
    "missing": ["pathology"], "token_logit": {"clinical": 0.2, "genomics": 1.1},
    "attention": {"clinical": 0.1, "genomics": 0.3, "genomics->pathology": 0.4},
}  # fmt: skip
NEW_VIEW = OLD_VIEW | {
    "conformal_set": ["B"], "conformal_level": 0.9,
    "contributions": {"clinical": 0.25, "genomics": -1.5},
}  # fmt: skip


def state(view: dict) -> CaseState:
    return CaseState(
        case="c", assessment=view, spent={}, waits=[], probability_clinical_only=0.5,
        present=["clinical", "genomics"], quality={"clinical": 1.0, "genomics": 0.75},
        transfers_run=["genomics->pathology"],
        choice={"policy": "rule", "reason": "enough is known.", "action": "finalise"},
    )  # fmt: skip


def test_weighting_shows_contribution_attention_and_quality_strongest_first():
    told = explain_case(state(NEW_VIEW), ["clinical", "genomics", "pathology"])
    assert list(told.weighting) == ["genomics", "clinical"]
    genomics = told.weighting["genomics"]
    assert genomics.contribution_log_odds == -1.5
    assert genomics.attention == pytest.approx(0.7)  # its token and the bridge from it
    assert genomics.quality == 0.75
    (line,) = [line for line in told.lines if line.startswith("What each modality")]
    assert "genomics -1.50 (attention 70 %, 75 % filled in); clinical +0.25" in line


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["B"], "At the 90 % level only B is left."),
        (["A", "B"], "At the 90 % level the evidence does not decide between A and B."),
        ([], "At the 90 % level the case is unlike either class: look at it with particular care."),
    ],
)
def test_the_set_is_told_in_words(classes, words):
    told = explain_case(state(NEW_VIEW | {"conformal_set": classes}), ["clinical", "genomics"])
    assert words in told.lines
    assert told.conformal_set == classes


def test_a_case_of_an_earlier_version_is_explained_without_them():
    told = explain_case(state(OLD_VIEW), ["clinical", "genomics", "pathology"])
    assert not any("level" in line or line.startswith("What each") for line in told.lines)
    assert told.conformal_level is None
    assert told.weighting == {}
    assert AssessmentRecord.model_validate(OLD_VIEW).contributions == {}
    new = ("conformal_set", "conformal_level", "weighting")
    stored = {k: v for k, v in told.model_dump(mode="json").items() if k not in new}
    assert Explanation.model_validate(stored) == told


@pytest.mark.parametrize(("p", "bits"), [(0.5, 1.0), (0.0, 0.0), (1.0, 0.0), (0.25, 0.811278)])
def test_uncertainty_is_the_entropy(p, bits):
    assert uncertainty_bits(p) == pytest.approx(bits, abs=1e-6)


def insight():
    return replay_kit(toy_evidence(n_patients=120, seed=2), make_policy=make_policy).insight


MODALITIES = ["clinical", "genomics", "pathology"]


def test_with_the_cohort_at_hand_peers_and_drift_are_told():
    told = explain_case(state(NEW_VIEW), MODALITIES, insight(), {"genomics": (9, 20)})
    assert told.peers is not None
    assert told.peers.modalities == ["clinical", "genomics"]
    assert any(line.startswith("Patients like this one") for line in told.lines)
    assert "genomics: 9 of 20 numbers lie outside the range of the training patients." in told.drift
    for flag in told.drift:
        assert f"Unlike the training patients: {flag}" in told.lines
    assert told.watched is not None
    assert told.watched.flagged
    assert told.watched.outside == {"genomics": 0.45}
    bare = explain_case(state(NEW_VIEW), MODALITIES)
    assert (bare.peers, bare.watched, bare.drift) == (None, None, [])


def test_what_people_asked_for_is_told_with_whose_wish_it_was():
    asked = {"reviewer": "dr b", "reason_code": "clinical_judgement"}
    changed = state(NEW_VIEW) | {
        "present": ["clinical", "pathology"], "unreliable": ["genomics"],
        "transfers_run": ["pathology->clinical"],
        "requests": [
            {"action": "request_transfer", "transfer": "pathology->clinical", **asked},
            {"action": "request_transfer", "transfer": "clinical->genomics", **asked},
            {"action": "mark_unreliable", "modality": "genomics", **asked},
            {"action": "raise_urgency", "urgency": 0.9, "reviewer": "dr c"},
        ],
    }  # fmt: skip
    told = explain_case(changed, MODALITIES, insight())
    assert told.requested == [
        "pathology->clinical was asked for by dr b (clinical judgement).",
        "clinical->genomics was asked for by dr b (clinical judgement). It is not among those run.",
        "genomics was marked as unreliable and left out by dr b (clinical judgement).",
        "Urgency was raised to 0.9 by dr c.",
    ]
    assert told.unreliable == ["genomics"]
    assert "Left out as unreliable: genomics." in told.lines
    # it came with the case, so the watch counts it as there, and nobody says that it is lacking
    assert told.missing == []
    assert told.watched is not None
    assert sorted(told.watched.present) == sorted(MODALITIES)
    # patients like this one are those whom the student saw in the same way
    assert told.peers is not None
    assert told.peers.modalities == ["clinical", "pathology"]


def test_what_would_have_changed_the_last_choice_is_told():
    axis = {"axis": "grid", "unit": "gCO2e/kWh", "now": 200.0, "low": 20.0, "high": 800.0,
            "flips": [{"at": 100.0, "becomes": "genomics->pathology"}]}  # fmt: skip
    told = explain_case(state(NEW_VIEW) | {"changes": [axis]}, MODALITIES)
    at = told.lines.index("The last choice was finalise.")
    assert told.lines[at + 1] == (
        "It would have been genomics->pathology with the grid now at 100 instead of 200 gCO2e/kWh."
    )
    assert told.changes[0].flips[0].becomes == "genomics->pathology"


def test_classes_are_called_by_their_names():
    named = replace(insight(), classes=("LUAD", "LUSC"))
    told = explain_case(state(NEW_VIEW), MODALITIES, named)
    assert told.lines[0].startswith("Probability of LUSC (positive) 0.800; 0.500 with clinical")
    assert told.classes == ["LUAD", "LUSC"]
    assert sendable(told)[0] == "Suggestion: LUSC (positive); a clinician decides."
    assert sendable(told)[1] == told.lines[0]
    step = {"kind": "explanation", "data": told.model_dump(mode="json")}
    assert step_lines(step)[0].startswith("Suggests LUSC (positive): probability of LUSC (positive")
    view = {"kind": "assessment", "data": {"probability": 0.25}}
    assert step_lines(view, ("LUAD", "LUSC"))[0] == (
        "Probability of LUSC (positive) 0.250, with clinical data alone."
    )
