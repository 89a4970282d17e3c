from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent.report.shadow_page import headline, render_shadow, write_shadow
from agent.workflow.errors import WorkflowError
from agent.workflow.shadow import REPLICATES, compare_shadow, shadow_entries
from agent.workflow.state import Option
from agent.workflow.told import ShadowEntry
from envs.catalogue import ActionCatalogue

CATALOGUE = ActionCatalogue(("genomics->pathology",))


def row(case: str, seq: int, acting: str, own: str, *, policy: str = "price", gain: float = 0.0,
        grams: float = 0.0, by_limit: bool = False) -> dict[str, Any]:  # fmt: skip
    return {
        "case_id": case, "seq": seq, "policy": policy, "acting": "planner", "action": own,
        "data": {
            "acting_action": acting, "predicted_auc_gain": gain, "g_co2e": grams,
            "acting_predicted_auc_gain": 0.002, "acting_g_co2e": 100.0, "by_limit": by_limit,
        },
        "probability": 0.5, "created_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip


def some(n: int, agree: float, rng: np.random.Generator, steps: int = 3) -> list[dict[str, Any]]:
    rows = []
    for i in range(n):
        for s in range(steps):
            same = rng.random() < agree
            rows.append(row(f"c{i}", 4 * s, "finalise", "finalise" if same else "defer"))
    return rows


class Fixed:
    """Takes the first of its wishes that is open."""

    def __init__(self, name: str, *wishes: str) -> None:
        self.name, self.wishes = name, wishes

    def reset(self, num_envs: int, seed: int) -> None: ...

    def reason(self, observation: np.ndarray, action: int) -> str:
        return ""

    def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
        open_ = [w for w in self.wishes if action_mask[0, CATALOGUE.names.index(w)]]
        return np.array([CATALOGUE.names.index(open_[0])])


OPTIONS = [
    Option(action="genomics->pathology", allowed=True, predicted_auc_gain=0.003, energy_kwh=2.0,
           g_co2e=400.0),
    Option(action="finalise", allowed=True),
    Option(action="defer", allowed=False),
]  # fmt: skip


def test_each_silent_policy_is_asked_within_what_is_open() -> None:
    seen: dict[str, Any] = {"seq": 7, "acting": "planner", "action": 1, "options": OPTIONS}
    policies = (Fixed("eager", "genomics->pathology"), Fixed("late", "defer", "finalise"))
    entries = shadow_entries(policies, CATALOGUE, np.zeros((1, 3), np.float32), **seen)
    eager, late = entries
    assert (eager.seq, eager.policy, eager.acting, eager.action) == (
        7, "eager", "planner", "genomics->pathology",
    )  # fmt: skip
    assert eager.data.model_dump() == {
        "acting_action": "finalise", "predicted_auc_gain": 0.003, "g_co2e": 400.0,
        "acting_predicted_auc_gain": 0.0, "acting_g_co2e": 0.0, "by_limit": False,
    }  # fmt: skip
    assert late.action == "finalise"
    assert shadow_entries((), CATALOGUE, np.zeros((1, 3), np.float32), **seen) == []


def test_differences_and_tables_by_hand() -> None:
    rows = [
        row("a", 3, "finalise", "finalise", gain=0.002, grams=100.0),
        row("a", 7, "finalise", "defer", gain=0.0, grams=0.0),
        row("b", 3, "finalise", "genomics->pathology", gain=0.004, grams=300.0),
    ]
    (pair,) = compare_shadow(rows).pairs
    assert (pair.policy, pair.acting, pair.cases, pair.steps) == ("price", "planner", 2, 3)
    assert pair.agreement.value == pytest.approx(1 / 3)
    assert pair.first_agreement.value == pytest.approx(1 / 2)
    assert pair.gain.value == pytest.approx((0 - 0.002 + 0.002) / 3)
    assert pair.g_co2e.value == pytest.approx((0 - 100 + 200) / 3)
    assert pair.actions == {
        ("finalise", "defer"): 1, ("finalise", "finalise"): 1,
        ("finalise", "genomics->pathology"): 1,
    }  # fmt: skip


def test_agreement_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    inside = []
    for i in range(120):
        (pair,) = compare_shadow(some(60, 0.8, rng), seed=i).pairs
        inside.append(pair.agreement.low <= 0.8 <= pair.agreement.high)
    assert 0.88 <= np.mean(inside) <= 1.0


def test_steps_that_go_together_count_for_less() -> None:
    rng = np.random.default_rng(4)
    whims = rng.random(80) < 0.6
    alike = [
        row(f"c{i}", s, "finalise", "finalise" if same else "defer")
        for i, same in enumerate(whims)
        for s in range(5)
    ]
    free = [
        row(f"c{i}", s, "finalise", "finalise" if rng.random() < 0.6 else "defer")
        for i in range(80)
        for s in range(5)
    ]
    (together,), (apart,) = compare_shadow(alike).pairs, compare_shadow(free).pairs
    width = [p.agreement.high - p.agreement.low for p in (together, apart)]
    assert width[0] > 1.7 * width[1]  # sqrt(5) = 2.2 in the long run


def test_perfect_agreement_is_not_certainty() -> None:
    (pair,) = compare_shadow(some(30, 1.0, np.random.default_rng(0))).pairs
    assert pair.agreement.value == 1.0
    assert pair.agreement.low == pytest.approx(30 / (30 + 1.959964**2), abs=1e-6)
    assert pair.agreement.high == 1.0


def test_waits_that_a_limit_ordered_are_left_out() -> None:
    rows = [row("a", 3, "finalise", "finalise"), row("b", 3, "defer", "finalise", by_limit=True)]
    report = compare_shadow(rows)
    assert (report.steps, report.left_out) == (2, 1)
    assert report.pairs[0].steps == 1


def test_pairs_are_kept_apart_and_ordered() -> None:
    rows = [row("a", 3, "finalise", "defer", policy=p) for p in ("rule", "mpc")]
    rows.append({**rows[0], "acting": "dp"})
    pairs = compare_shadow(rows).pairs
    assert [(p.acting, p.policy) for p in pairs] == [
        ("dp", "rule"), ("planner", "mpc"), ("planner", "rule"),
    ]  # fmt: skip


def test_what_it_cannot_say_is_said() -> None:
    report = compare_shadow(some(5, 0.5, np.random.default_rng(1)))
    assert "never met the consequences" in " ".join(report.remarks)
    assert "Too few cases" in report.remarks[0]
    assert "Too few" not in compare_shadow(some(40, 0.5, np.random.default_rng(1))).remarks[0]


def test_the_same_log_gives_the_same_report() -> None:
    rows = some(25, 0.7, np.random.default_rng(2))
    assert compare_shadow(rows).to_json() == compare_shadow(list(rows)).to_json()
    assert REPLICATES >= 1000


@pytest.mark.parametrize("broken", [{"seq": -1}, {"data": {}}, {"action": None}])
def test_a_row_that_is_none_is_refused_and_not_repeated(broken: dict[str, Any]) -> None:
    bad = row("secret-case", 3, "finalise", "defer") | broken
    with pytest.raises(WorkflowError, match="Row 1 of the shadow log") as caught:
        compare_shadow([bad])
    assert "secret-case" not in str(caught.value)


def test_figures_have_their_interval_and_number() -> None:
    data = compare_shadow(some(25, 0.7, np.random.default_rng(2))).to_json()
    (pair,) = data["pairs"]
    for name in ("agreement", "first_agreement", "step_auc_gain_difference",
                 "step_g_co2e_difference"):  # fmt: skip
        assert set(pair[name]) == {"value", "ci95", "n"}
    assert sum(entry["n"] for entry in pair["actions"]) == pair["steps"]


def test_the_page_holds_figures_limits_and_no_case(tmp_path: Any) -> None:
    report = compare_shadow([*some(25, 0.7, np.random.default_rng(2)),
                             row("<b>", 3, "finalise", "<script>")])  # fmt: skip
    page, figures = write_shadow(report, tmp_path / "out", tags=("Synthetic patients",))
    html = page.read_text()
    for words in ("Research use only", "Synthetic patients", "never met the consequences",
                  "price beside planner", "Wilson"):  # fmt: skip
        assert words in html
    assert "<script>" not in html
    assert "c12" not in html
    assert figures.name == "shadow.json"
    empty = compare_shadow([])
    assert "No silent policy" in headline(empty)[0]
    assert "No silent policy" in render_shadow(empty)


def test_an_entry_goes_through_the_store_and_back() -> None:
    entry = ShadowEntry.model_validate(
        {k: v for k, v in row("a", 3, "finalise", "defer").items()
         if k in ("seq", "policy", "acting", "action", "data")}
    )  # fmt: skip
    again = compare_shadow([{"case_id": "a", **entry.model_dump(mode="json")}])
    assert again.pairs[0].steps == 1
