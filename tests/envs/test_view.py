"""Observations of sessions under way, against the layout's own encoding of physical values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distill.evidence import EvidenceTable
from envs.config import LEADS_H, RULES
from envs.dynamics import SessionState, advance, begin, empty_state, open_actions
from envs.session import SessionDraw, draw_sessions
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence
from envs.view import columns_of, observe

MODALITIES = ("clinical", "genomics", "pathology", "radiomics")


def drawn(setup: ReviewSetup, n: int) -> SessionDraw:
    rngs = [np.random.default_rng(seed) for seed in range(n)]
    counts = (setup.n_pos, setup.n_neg)
    return draw_sessions(setup.tables, setup.grid, setup.config, counts, rngs, rules=setup.rules)


def physical_values(
    setup: ReviewSetup, evidence: EvidenceTable, draw: SessionDraw, state: SessionState, row: int
) -> dict[str, float | np.ndarray]:
    """Every field of one session, computed the slow way from the evidence."""
    case, hour, slots_per_hour = (
        int(state.case[row]), int(state.hour[row]), setup.config.slots_per_hour,
    )  # fmt: skip
    patient, k = int(draw.patient[row, case]), int(state.current_set[row])
    logit = float(evidence.logit[patient, k])
    p = 1 / (1 + math.exp(-logit))
    run = evidence.sets.membership[k]
    now = float(draw.g_per_kwh[row, hour])
    now_h = hour if setup.rules == "worklist" else int(state.head[row]) / slots_per_hour
    new = [
        not evidence.processed[k, evidence.modalities.index(t.source)] for t in evidence.transfers
    ]
    pipeline = [
        evidence.pipeline_kwh[evidence.modalities.index(t.source)] for t in evidence.transfers
    ]
    starts = np.zeros(len(pipeline))
    if setup.rules == "worklist":
        source = [evidence.modalities.index(t.source) for t in evidence.transfers]
        runs = state.run_h[row, source] == hour
        starts = setup.config.setup_factor * np.array(new) * np.array(pipeline) * ~runs
    energy = evidence.transfer_kwh + np.array(new) * np.array(pipeline) + starts
    due_h = float(draw.deadline_h[row, case])
    if setup.rules == "worklist":
        time_left = int(draw.session_h[row]) - hour
        later = max(min(math.floor(due_h), int(draw.session_h[row]) - 1) - hour, 0)
        slots_now = int(state.slots[row])
        slots = slots_now + later * slots_per_hour
    else:
        time_left = int(state.tail[row] - state.head[row]) / slots_per_hour
        slots_now = slots_per_hour - int(state.head[row]) % slots_per_hour
        slots = max(math.floor(due_h * slots_per_hour) - int(state.head[row]), 0) + 1
    left = float(state.budget_g[row] - state.spent_g[row])
    leads = {f"intensity_lead_{h}h": draw.forecast[row, hour, i] for i, h in enumerate(LEADS_H)}
    return {
        "probability": p, "entropy": -p * math.log2(p) - (1 - p) * math.log2(1 - p),
        "disagreement": float(evidence.disagreement[patient, k]), "logit": logit,
        "present": evidence.present[patient].astype(float),
        "quality": evidence.quality[patient].astype(float),
        "processed": evidence.processed[k].astype(float), "run": run.astype(float),
        "urgency": float(draw.urgency[row, case]),
        "slack_h": float(draw.deadline_h[row, case]) - now_h,
        "deferred": float(state.was_deferred[row, case]),
        "intensity_now": now, "intensity_uncertainty": float(draw.uncertainty[row]),
        "budget_left": left / float(state.budget_g[row]), "budget_left_g_co2e": left,
        "time_left": time_left, "slots_left_now": slots_now, "slots_left": slots,
        "gain": setup.gain_model.predict(np.array([k]), np.float32([logit]))[0].astype(float),
        "energy": energy, "g_co2e": energy * now, "setup": starts,
    } | leads | others(setup, evidence, draw, state, row)  # fmt: skip


def best_step(
    setup: ReviewSetup, evidence: EvidenceTable, patient: int, k: int
) -> tuple[float, int | None]:
    """Predicted gain of a case's best transfer, and the modality that it has to process."""
    logit = evidence.logit[patient, k : k + 1]
    gain = setup.gain_model.predict(np.array([k]), logit)[0]
    best, needs = 0.0, None
    for t, transfer in enumerate(evidence.transfers):
        source = evidence.modalities.index(transfer.source)
        possible = evidence.sets.next_set[k, t] >= 0 and evidence.present[patient, source]
        if possible and gain[t] > best:
            best, needs = gain[t], None if evidence.processed[k, source] else source
    return best, needs


def others(
    setup: ReviewSetup, evidence: EvidenceTable, draw: SessionDraw, state: SessionState, row: int
) -> dict[str, float | np.ndarray]:
    """What the other cases make of the fields, case by case."""
    hour, case = int(state.hour[row]), int(state.case[row])
    still_open = [c for c in range(setup.config.n_cases) if np.isnan(state.closed_h[row, c])]
    here = [c for c in still_open if draw.arrival_h[row, c] <= hour]
    steps = {
        c: best_step(setup, evidence, int(draw.patient[row, c]), int(state.set_idx[row, c]))
        for c in here
    }
    k, share = int(state.current_set[row]), []
    for transfer in evidence.transfers:
        source = evidence.modalities.index(transfer.source)
        same = [c for c in here if c != case and steps[c][1] == source]
        share.append(0 if evidence.processed[k, source] else len(same))
    return {
        "cases_left": len(still_open), "waiting": len(here),
        "to_come": len(still_open) - len(here),
        "ahead": sum(steps[c][0] > steps[case][0] for c in here), "sharing": np.array(share),
    }  # fmt: skip


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize(
    ("modalities", "settings"),
    [
        (MODALITIES[:3], {"budget_mode": "cmdp", "slots_per_hour": 2}),
        (MODALITIES, {"setup_factor": 4.0, "session_h_min": 10, "session_h_max": 20}),
    ],
)
def test_observations_are_the_encoded_physical_values(
    rules: str, modalities: tuple[str, ...], settings: dict[str, object]
) -> None:
    evidence = toy_evidence(120, 1, modalities)
    setup = build_setup(evidence=evidence, rules=rules, n_cases=12, **settings)
    draw = drawn(setup, 3)
    state, columns = empty_state(3, setup), columns_of(setup.layout)
    begin(state, np.arange(3), draw, setup)
    choose = np.random.default_rng(9)
    while not state.over.all():
        observations = observe(state, setup, columns)
        assert (observations >= setup.layout.low).all()
        assert (observations <= setup.layout.high).all()
        for row in np.flatnonzero(~state.over):
            values = physical_values(setup, evidence, draw, state, int(row))
            expected = setup.layout.encode(values)[0]
            np.testing.assert_allclose(observations[row], expected, rtol=3e-6, atol=1e-6)
        mask = open_actions(state, setup)
        actions = (choose.random(mask.shape) * mask).argmax(axis=1)
        advance(state, setup, actions, mask)


def test_the_mask_is_the_catalogues_rule() -> None:
    evidence = toy_evidence(120, 2, MODALITIES)
    setup = build_setup(evidence=evidence, n_cases=12, budget_fraction=0.1)
    draw = drawn(setup, 4)
    state = empty_state(4, setup)
    begin(state, np.arange(4), draw, setup)
    choose = np.random.default_rng(9)
    while not state.over.any():
        rows = np.arange(4)
        patient = draw.patient[rows, state.case]
        grams = (
            setup.tables.step_kwh[state.current_set] * state.g_per_kwh[rows, state.hour][:, None]
        )
        mask = open_actions(state, setup)
        rule = setup.catalogue.action_mask(
            available=setup.catalogue.available(evidence.modalities, evidence.present[patient]),
            run=evidence.sets.membership[state.current_set],
            may_defer=mask[:, setup.catalogue.defer],
            affordable=grams + state.spent_g[:, None] <= state.budget_g[:, None],
        )
        assert (mask == rule).all()
        advance(state, setup, (choose.random(mask.shape) * mask).argmax(axis=1), mask)
