"""Observations of sessions under way, against the layout's own encoding of physical values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distill.evidence import EvidenceTable
from envs.config import LEADS_H
from envs.dynamics import SessionState, advance, begin, empty_state, open_actions
from envs.session import SessionDraw, draw_sessions
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence
from envs.view import columns_of, observe

MODALITIES = ("clinical", "genomics", "pathology", "radiomics")


def physical_values(
    setup: ReviewSetup, evidence: EvidenceTable, draw: SessionDraw, state: SessionState, row: int
) -> dict[str, float | np.ndarray]:
    """Every field of one session, computed the slow way from the evidence."""
    case, hour = int(state.case[row]), int(state.hour[row])
    patient, k = int(draw.patient[row, case]), int(state.current_set[row])
    logit = float(evidence.logit[patient, k])
    p = 1 / (1 + math.exp(-logit))
    run = evidence.sets.membership[k]
    now = float(draw.g_per_kwh[row, hour])
    now_h = float(state.head[row]) / setup.config.slots_per_hour
    new = [
        not evidence.processed[k, evidence.modalities.index(t.source)] for t in evidence.transfers
    ]
    pipeline = [
        evidence.pipeline_kwh[evidence.modalities.index(t.source)] for t in evidence.transfers
    ]
    energy = evidence.transfer_kwh + np.array(new) * np.array(pipeline)
    visits = int(state.tail[row] - state.head[row])
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
        "time_left": visits / setup.config.slots_per_hour, "cases_left": visits,
        "gain": setup.gain_model.predict(np.array([k]), np.float32([logit]))[0].astype(float),
        "energy": energy, "g_co2e": energy * now,
    } | leads  # fmt: skip


@pytest.mark.parametrize("modalities", [MODALITIES[:3], MODALITIES])
@pytest.mark.parametrize("budget_mode", ["mask+price", "cmdp"])
def test_observations_are_the_encoded_physical_values(
    modalities: tuple[str, ...], budget_mode: str
) -> None:
    evidence = toy_evidence(120, 1, modalities)
    setup = build_setup(evidence=evidence, n_cases=12, budget_mode=budget_mode)
    rngs = [np.random.default_rng(seed) for seed in range(3)]
    draw = draw_sessions(setup.tables, setup.grid, setup.config, (setup.n_pos, setup.n_neg), rngs)
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
    rngs = [np.random.default_rng(seed) for seed in range(4)]
    draw = draw_sessions(setup.tables, setup.grid, setup.config, (setup.n_pos, setup.n_neg), rngs)
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
