"""Sources of sessions: ids, presets, traces; and what everything for everybody would come to."""

from __future__ import annotations

import numpy as np
import pytest

from agent.errors import ComparisonError
from agent.policies.simple import EverythingPolicy, NeverPolicy
from agent.rollout import run_sessions, without_limits
from agent.sessions import ENV_IDS, ONESHOT, SEQUENTIAL, WORKLIST, SessionSource
from carbon.intensity.synthetic import synthetic_trace
from envs.config import SessionConfig
from envs.errors import ConfigError
from envs.toy import toy_evidence

SMALL = SessionConfig(n_cases=12, slots_per_hour=1)


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_an_id_brings_its_rules(env_id: str) -> None:
    source = SessionSource.of_evidence(toy_evidence(100), config=SMALL, env_id=env_id)
    rules = {ONESHOT: "oneshot", SEQUENTIAL: "sequential", WORKLIST: "worklist"}[env_id]
    assert source.rules == source.evaluation(4).rules == source.training(4).rules == rules
    assert source.facts()["environment"] == env_id


def test_a_preset_is_looked_up_and_named() -> None:
    source = SessionSource.of_evidence(toy_evidence(100), preset="hard", env_id=WORKLIST)
    assert source.config.slots_per_hour == 1
    assert source.facts()["preset"] == "hard"
    with pytest.raises(ConfigError, match="Did you mean 'swing'"):
        SessionSource.of_evidence(toy_evidence(100), preset="swings")
    with pytest.raises(ComparisonError, match="not both"):
        SessionSource.of_evidence(toy_evidence(100), preset="hard", config=SMALL)


def test_an_unknown_id_is_refused_with_the_nearest() -> None:
    with pytest.raises(ComparisonError, match="Did you mean 'greenboard/CaseReview-v1'"):
        SessionSource.of_evidence(toy_evidence(100), env_id="greenboard/CaseReview-v2")


def test_sessions_draw_among_several_traces_and_keep_which() -> None:
    traces = [synthetic_trace(24 * 60, seed) for seed in (1, 2)]
    source = SessionSource.of_evidence(toy_evidence(100), config=SMALL, trace=traces)
    setup = source.evaluation(4)
    policy = NeverPolicy(layout=setup.layout, catalogue=setup.catalogue)
    records = run_sessions(policy, setup, range(30))
    assert set(records.trace_idx.tolist()) == {0, 1}
    assert len(source.facts()["traces"]) == 2
    with pytest.raises(ComparisonError, match="given twice"):
        SessionSource.of_evidence(toy_evidence(100), trace=[traces[0], traces[0]])
    with pytest.raises(ComparisonError, match="No trace was given"):
        SessionSource.of_evidence(toy_evidence(100), trace=[])


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_everything_for_everybody_meets_no_limit(env_id: str) -> None:
    """One slot an hour, or one decision a case, must not make the reference look poor."""
    source = SessionSource.of_evidence(toy_evidence(200), config=SMALL, env_id=env_id)
    setup = source.evaluation(4)
    free = without_limits(setup)
    policy = EverythingPolicy(layout=setup.layout, catalogue=setup.catalogue)
    records, held = run_sessions(policy, free, range(6)), run_sessions(policy, setup, range(6))
    np.testing.assert_array_equal(records.auc_base, held.auc_base)
    np.testing.assert_array_equal(records.patient, held.patient)
    processed = source.evidence.processed[records.final_set]
    present = source.evidence.present[source.rows((4,))[records.patient]]
    np.testing.assert_array_equal(processed, present)
    assert (held.g_co2e <= records.g_co2e + 1e-9).all()


def test_records_keep_what_happened_to_each_case() -> None:
    source = SessionSource.of_evidence(toy_evidence(200), config=SMALL, env_id=WORKLIST)
    setup = source.evaluation(4)
    policy = EverythingPolicy(layout=setup.layout, catalogue=setup.catalogue)
    records = run_sessions(policy, setup, range(6))
    np.testing.assert_allclose(records.case_g_co2e.sum(axis=1), records.g_co2e)
    np.testing.assert_allclose(records.case_lateness_h.sum(axis=1), records.lateness_h)
    np.testing.assert_array_equal(
        records.case_transfers.sum(axis=1) / 12, records.transfers_per_case
    )
    rows = source.rows((4,))[records.patient]
    np.testing.assert_array_equal(source.evidence.label[rows], records.label)
    np.testing.assert_array_equal(source.evidence.logit[rows, 0], records.first_score)
    np.testing.assert_array_equal(
        source.evidence.logit[rows, records.final_set], records.final_score
    )
    assert records.by_hour.sum() == records.by_urgency.sum()
