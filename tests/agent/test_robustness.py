"""Changed conditions change what they say, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from agent.contestants import Contestant
from agent.policies.registry import make_policy
from agent.robustness import (
    furthest_hospitals,
    robustness,
    run_scenario,
    scenarios,
    subset,
    without_some,
)
from agent.sessions import WORKLIST, SessionSource
from carbon.intensity.synthetic import synthetic_trace
from envs.config import SessionConfig
from envs.toy import toy_evidence


def source() -> SessionSource:
    return SessionSource.of_evidence(
        toy_evidence(200, seed=1), config=SessionConfig(n_cases=10), env_id=WORKLIST,
        trace=synthetic_trace(24 * 40, 5),
    )  # fmt: skip


def test_missingness_rises_by_the_points_asked_for() -> None:
    table = toy_evidence(300)
    rows = np.arange(300)
    changed = without_some(table, rows, 0.2, np.random.default_rng(0))
    lost = table.present[:, 1:].mean(axis=0) - changed.present[:, 1:].mean(axis=0)
    np.testing.assert_allclose(lost, 0.2, atol=0.004)
    assert changed.present[:, 0].all()
    assert not (changed.present & ~table.present).any()
    np.testing.assert_array_equal(np.isfinite(changed.logit), changed.reachable)
    kept = np.isfinite(changed.logit)
    np.testing.assert_array_equal(changed.logit[kept], table.logit[kept])


def test_furthest_hospitals_are_half_of_each_class_and_whole_where_they_can_be() -> None:
    table = toy_evidence(300)
    rows = furthest_hospitals(table, 2)
    assert (table.fold[rows] == 2).all()
    for label in (0, 1):
        n = int(((table.fold == 2) & (table.label == label)).sum())
        assert int((table.label[rows] == label).sum()) == -(-n // 2)
    assert subset(table, rows).n_patients == len(rows)


def test_every_kind_of_change_is_there_once() -> None:
    other = synthetic_trace(24 * 40, 6)
    found = scenarios(source(), (4,), np.random.default_rng(0), [other])
    kinds = [scenario.kind for scenario in found]
    assert kinds == ["budget", "budget", "trace", "trace", "missingness", "hospitals"]
    assert [s.source.config.budget_fraction for s in found[:2]] == [0.1, 0.4]
    assert found[2].source.traces == (other,)


def test_the_same_policies_act_on_the_changed_sessions() -> None:
    base = source()
    setup = base.evaluation(4)
    names = ("never", "always-everything", "price")
    contestants = tuple(
        Contestant(
            name=n, policies=(make_policy(n, setup.layout, setup.catalogue),), learned=False,
            details={},
        )
        for n in names
    )  # fmt: skip
    seen: list[str] = []
    (unchanged, *_) = scenarios(base, (4,), np.random.default_rng(0))
    results = run_scenario(
        unchanged, {4: contestants}, base, range(6), lambda stage, _n, _t: seen.append(stage)
    )
    found = robustness(
        base, results, range(6), np.random.default_rng(0), progress=lambda *_: None, replicates=40
    )
    assert seen == ["robustness: budget 10%"]
    assert found[0].name == "budget 10%"
    assert found[0].kendall_tau.value == pytest.approx(1.0)  # set against itself
    assert set(found[0].order) == set(names)
    wide = next(s for s in found if s.name == "budget 40%").figures["always-everything"]
    assert wide["g_co2e"].value > found[0].figures["always-everything"]["g_co2e"].value
