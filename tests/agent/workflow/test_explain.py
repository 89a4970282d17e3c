from __future__ import annotations

import pytest

from agent.workflow.explain import explain_case
from agent.workflow.state import AssessmentRecord, CaseState, Explanation

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
