"""What is shown of a session: true to the observation, the same each time, and no label."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs.case_review import CaseReviewEnv
from envs.catalogue import ActionCatalogue
from envs.errors import SessionError
from envs.observation import ObservationLayout
from envs.picture import WIDTH_PX, picture_of
from envs.render import LastStep, Scene, bar, sparkline, state_of, text_of
from envs.toy import toy_evidence

MODALITIES = ("clinical", "genomics", "pathology")
CATALOGUE = ActionCatalogue(("clinical->genomics", "genomics->pathology", "pathology->clinical"))
LAYOUT = ObservationLayout(MODALITIES, CATALOGUE.transfers)


def scene(**changes: Any) -> Scene:
    values: dict[str, Any] = dict.fromkeys(LAYOUT.names, 0.0)
    values |= {
        "probability": 0.43, "entropy": 0.99, "disagreement": 0.6, "urgency": 0.25,
        "slack_h": 17.5, "deferred": 1.0, "intensity_now": 182.0, "intensity_lead_1h": 170.0,
        "intensity_lead_3h": 150.0, "intensity_lead_6h": 160.0, "intensity_lead_12h": 240.0,
        "intensity_lead_24h": 190.0, "intensity_uncertainty": 0.1, "budget_left": 0.63,
        "budget_left_g_co2e": 1234.0, "waiting": 9.0, "to_come": 31.0, "slots_left_now": 3.0,
        "slots_left": 70.0, "present_clinical": 1.0, "present_genomics": 1.0,
        "quality_clinical": 1.0, "quality_genomics": 0.5, "processed_clinical": 1.0,
        "run_clinical->genomics": 1.0, "gain_genomics->pathology": 0.0025,
        "energy_genomics->pathology": 0.8, "g_co2e_genomics->pathology": 145.6,
        "setup_genomics->pathology": 0.2, "sharing_genomics->pathology": 3.0,
    }  # fmt: skip
    base = Scene(
        title="Review (worklist) of synthetic patients, carbon intensity synthetic",
        layout=LAYOUT,
        observation=LAYOUT.encode(values)[0],
        mask=np.array([False, True, False, True, False]),
        actions=CATALOGUE.names,
        hour=12.0,
        length_h=48.0,
        last=LastStep(
            action="clinical->genomics", probability_before=0.38, probability_after=0.43,
            g_co2e=15.25, invalid=False,
        ),
    )  # fmt: skip
    return replace(base, **changes)


def test_text_says_what_the_agent_sees() -> None:
    lines = text_of(scene()).splitlines()
    assert lines[0].startswith("Review (worklist) of synthetic patients")
    text = "\n".join(lines)
    for part in (
        "hour    12 of 48; 3 slots left in this hour, 70 until this case is due; waiting 9",
        "63% left (1,234 gCO2e)",
        "▃▃▁▂█▄ 182 gCO2e/kWh now; forecast +1 h 170, +3 h 150, +6 h 160, +12 h 240, +24 h 190",
        "p 0.430, entropy 0.99 bit",
        "urgency 0.25 (simulated), due in 17.5 h, put off before",
        "clinical 100% filled (processed), genomics 50% filled, pathology absent",
        "done    clinical->genomics",
        "open    genomics->pathology  gain +0.250 AUC points  0.8 kWh  145.6 gCO2e"
        "  of it 0.2 kWh to start a run, shared with 3 more waiting",
        "absent  pathology->clinical\n",
        "closed  defer",
        "last    clinical->genomics: p 0.380 -> 0.430, 15.2 gCO2e",
    ):
        assert part in text
    assert "over:" not in text


def test_last_actions_in_words() -> None:
    step = scene().last
    assert step is not None
    assert replace(step, action="defer").words == "defer, at p 0.380"
    assert "nothing happened" in replace(step, invalid=True).words
    assert "last" not in text_of(scene(last=None))


def test_totals_come_at_the_end_only() -> None:
    totals = {
        "session_auc_base": 0.6, "session_auc_final": 0.875, "total_g_co2e": 1200.0,
        "budget_g": 2400.0, "n_late": 2,
    }  # fmt: skip
    text = text_of(scene(totals=totals))
    assert text.endswith("over: AUC 0.600 -> 0.875, 1,200 gCO2e of 2,400, 2 late")


def test_small_drawings() -> None:
    assert sparkline((1.0, 1.0)) == "▄▄"
    assert sparkline((0.0, 7.0)) == "▁█"
    assert bar(-1.0) == "[" + "." * 20 + "]"
    assert bar(2.0) == "[" + "#" * 20 + "]"


def test_a_picture_is_the_same_each_time_and_follows_the_scene() -> None:
    first, again = picture_of(scene()), picture_of(scene())
    assert first.dtype == np.uint8
    assert first.shape[1:] == (WIDTH_PX, 3)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != picture_of(scene(hour=13.0)).tobytes()
    # White paper, dark ink, and something in colour.
    assert (first == 255).mean() > 0.7
    assert first.min() < 40
    assert (np.ptp(first.astype(int), axis=2) > 100).any()


def test_a_masked_action_says_why() -> None:
    values = {"slots_left_now": 0.0, "present_pathology": 1.0, "g_co2e_pathology->clinical": 9e3}
    base = scene()
    none_open = np.zeros(5, dtype=bool)

    def states(**changed: float) -> list[str]:
        physical = {name: base.seen[name] for name in LAYOUT.names} | changed
        seen = LAYOUT.encode(physical)[0]
        now = replace(base, observation=seen, mask=none_open)
        return [state_of(now, name) for name in CATALOGUE.names]

    assert states() == ["done", "closed", "absent", "closed", "closed"]
    assert states(**values)[1:3] == ["no slot", "no slot"]
    assert states(**(values | {"slots_left_now": 1.0}))[2] == "budget"


IDS = ["CaseReviewOneShot", "CaseReviewSequential", "CaseReview"]


@pytest.mark.parametrize("name", IDS)
def test_every_environment_renders_both_ways(name: str) -> None:
    """A whole session in words, totals at the end; a picture at its start, another at its end."""
    evidence = toy_evidence(60, 0)
    made = {
        mode: gymnasium.make(
            f"greenboard/{name}-v1", evidence=evidence, n_cases=4, render_mode=mode
        )
        for mode in ("ansi", "rgb_array")
    }
    for env in made.values():
        with pytest.raises(SessionError, match="call reset"):
            env.unwrapped.render()
        _, info = env.reset(seed=1)
    first = made["rgb_array"].render()
    assert isinstance(first, np.ndarray)
    assert first.dtype == np.uint8
    rng, ended, last = np.random.default_rng(0), False, "no action yet"
    while not ended:
        text = made["ansi"].render()
        assert isinstance(text, str)
        assert f"last    {last}" in text or last == "no action yet"
        action = int(rng.choice(np.flatnonzero(info["action_mask"])))
        last = made["ansi"].unwrapped.catalogue.names[action]
        for env in made.values():
            _, _, ended, _, info = env.step(action)
    text = made["ansi"].render()
    assert f"over: AUC {info['session_auc_base']:.3f} -> {info['session_auc_final']:.3f}" in text
    assert made["rgb_array"].render().tobytes() != first.tobytes()
    check_env(made["rgb_array"].unwrapped)


def test_what_is_made_up_is_said_in_the_title() -> None:
    evidence = toy_evidence(60, 0)
    env = gymnasium.make(
        "greenboard/CaseReview-v1", evidence=evidence, n_cases=4, preset="swing", render_mode="ansi"
    )
    env.reset(seed=0)
    title = env.render().splitlines()[0]
    assert "synthetic patients, synthetic carbon intensity" in title
    assert "swing x 2 (stress)" in title
    real = replace(evidence, synthetic=False, cohort="ward-7")
    env = gymnasium.make("greenboard/CaseReview-v1", evidence=real, n_cases=4, render_mode="ansi")
    env.reset(seed=0)
    assert "patients of ward-7" in env.render()


def test_unknown_render_modes_are_refused() -> None:
    with pytest.raises(SessionError, match="'ansi' or 'rgb_array'"):
        CaseReviewEnv(evidence=toy_evidence(60, 0), n_cases=4, render_mode="human")
    env = CaseReviewEnv(evidence=toy_evidence(60, 0), n_cases=4)
    env.reset(seed=0)
    assert env.render() is None
