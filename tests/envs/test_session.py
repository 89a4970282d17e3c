"""What is drawn: patients, order, urgency, hours of the grid; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carbon.intensity.synthetic import synthetic_trace
from distill.errors import BundleError
from envs.errors import LeakWarning, SessionError
from envs.session import SessionDraw, draw_sessions, resolve_grid
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence


def draw(setup: ReviewSetup, n: int, seed: int = 0) -> SessionDraw:
    rngs = [np.random.default_rng(seed + i) for i in range(n)]
    counts = (setup.n_pos, setup.n_neg)
    return draw_sessions(setup.tables, setup.grid, setup.config, counts, rngs)


@pytest.fixture(scope="module")
def setup() -> ReviewSetup:
    return build_setup(evidence=toy_evidence(300, 0), folds=[0, 1, 2], urgent_fraction=0.2)


def test_patients_come_once_with_fixed_class_counts_from_the_folds(setup: ReviewSetup) -> None:
    evidence = toy_evidence(300, 0)
    rows = np.flatnonzero(np.isin(evidence.fold, [0, 1, 2]))
    prevalence = evidence.label[rows].mean()
    assert setup.n_pos == round(64 * prevalence)
    drawn = draw(setup, 20)
    for patients, order in zip(drawn.patient, drawn.order):
        assert len(set(patients.tolist())) == 64
        labels = evidence.label[rows[patients]]
        assert labels[: setup.n_pos].all()
        assert not labels[setup.n_pos :].any()
        assert sorted(order.tolist()) == list(range(64))


def test_every_patient_is_as_likely_and_the_order_says_nothing_about_the_class(
    setup: ReviewSetup,
) -> None:
    drawn = draw(setup, 400)
    seen = np.bincount(drawn.patient.ravel(), minlength=len(setup.tables.traits))
    positives = seen[setup.tables.positives]
    expected = 400 * setup.n_pos / len(positives)
    assert np.abs(positives - expected).max() < 5 * np.sqrt(expected)
    first_is_positive = np.mean(drawn.order[:, 0] < setup.n_pos)
    assert first_is_positive == pytest.approx(setup.n_pos / 64, abs=0.1)


def test_urgency_is_simulated_as_documented_and_deadlines_fall_with_it(setup: ReviewSetup) -> None:
    drawn = draw(setup, 200)
    assert np.mean(drawn.urgency > 0.8) == pytest.approx(0.2, abs=0.015)
    assert drawn.urgency.min() >= 0.0
    assert drawn.urgency.max() <= 1.0
    scheduled = np.argsort(drawn.order, axis=1) / setup.config.slots_per_hour
    slack = drawn.deadline_h - scheduled
    order = np.argsort(drawn.urgency.ravel())
    assert (np.diff(slack.ravel()[order]) <= 1e-12).all()
    assert slack.min() == pytest.approx(setup.config.urgent_slack_h)
    usual = slack[drawn.urgency <= 0.8]
    assert usual.min() >= setup.config.slack_min_h - 1e-9
    assert slack.max() <= setup.config.slack_max_h + 1e-9


def test_the_forecast_is_the_future_with_an_error_that_grows(setup: ReviewSetup) -> None:
    drawn = draw(setup, 300)
    hours = drawn.g_per_kwh.shape[1]
    spread = []
    for i, lead in enumerate((1, 3, 6, 12, 24)):
        true = drawn.g_per_kwh[:, lead:]
        said = drawn.forecast[:, : hours - lead, i]
        error = said / true - 1.0
        assert np.mean(error) == pytest.approx(0.0, abs=0.01)
        spread.append(float(np.std(error)))
    assert spread == sorted(spread)
    # A session's forecaster is 0.5 to 1.5 times as uncertain as configured, and says so.
    skill = drawn.uncertainty / setup.config.forecast_sd_24h
    assert 0.5 <= skill.min() < skill.max() <= 1.5
    error = drawn.forecast[:, : hours - 24, 4] / drawn.g_per_kwh[:, 24:] - 1.0
    assert np.corrcoef(np.abs(error).mean(axis=1), skill)[0, 1] > 0.5


def test_training_and_evaluation_never_share_an_hour() -> None:
    trace = synthetic_trace(300, 0)
    trace = replace(trace, g_per_kwh=np.arange(300.0))
    apart = {"folds": [0, 1], "fit_folds": [2, 3, 4], "n_cases": 16}
    setups = {
        period: build_setup(evidence=toy_evidence(100, 0), trace=trace, period=period, **apart)
        for period in ("train", "eval", "all")
    }
    touched = {}
    for period, setup in setups.items():
        leads = np.concatenate([np.arange(setup.config.horizon_h())])
        starts = np.arange(setup.grid.n_starts[0])
        touched[period] = set(setup.grid.g_per_kwh[starts[:, None] + leads].ravel().tolist())
    assert touched["train"] == set(map(float, range(210)))
    assert touched["eval"] == set(map(float, range(210, 300)))
    assert touched["all"] == set(map(float, range(300)))


def test_gains_fitted_on_the_patients_of_an_evaluation_are_warned_of() -> None:
    evidence = toy_evidence(100, 0)
    with pytest.warns(LeakWarning, match=r"folds \[2, 3, 4\]"):
        build_setup(evidence=evidence, period="eval", folds=[2, 3, 4], n_cases=16)
    fitted = build_setup(evidence=evidence, folds=[0, 1], n_cases=16).gain_model
    # None of these warns: warnings are errors here.
    build_setup(evidence=evidence, period="eval", folds=[2], fit_folds=[3, 4], n_cases=16)
    build_setup(evidence=evidence, period="eval", folds=[2, 3], gain_model=fitted, n_cases=16)
    build_setup(evidence=evidence, period="train", folds=[2, 3], fit_folds=[2, 3, 4], n_cases=16)


def test_one_seed_one_session(setup: ReviewSetup) -> None:
    one, again, other = draw(setup, 1, 7), draw(setup, 1, 7), draw(setup, 1, 8)
    many = draw(setup, 5, 5)
    for name in vars(one):
        assert getattr(one, name).tobytes() == getattr(again, name).tobytes()
        assert getattr(many, name)[2].tobytes() == getattr(one, name)[0].tobytes()
    assert one.patient.tobytes() != other.patient.tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": [0, 9]}, r"Folds \[0, 9\] were asked for; .* has \[0, 1, 2, 3, 4\]"),
        ({"folds": []}, "were asked for"),
        ({"fit_folds": [7]}, "were asked for"),
        (
            {"period": "eval", "folds": [0, 1], "fit_folds": [1, 2]},
            r"labels of the patients reviewed, those of folds \[1\]. Give other folds as fit_folds",
        ),
        ({"n_cases": 400}, "set n_cases lower"),
        ({"folds": [0], "n_cases": 100}, "Choose more folds"),
        ({"period": "test"}, "choose train, eval or all"),
        ({"trace": synthetic_trace(60, 0)}, "Use a longer trace"),
        ({"trace": replace(synthetic_trace(600, 0), g_per_kwh=np.full(600, 1e5))}, "outside 0"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(SessionError, match=message):
        build_setup(evidence=toy_evidence(300, 0), **arguments)


def test_evidence_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="No evidence table"):
        build_setup(evidence=tmp_path / "evidence.npz")
    with pytest.raises(SessionError, match="nothing to decide"):
        build_setup(evidence=toy_evidence(100, 0, ("clinical",)))
    table = toy_evidence(100, 0)
    for name in ("quality", "disagreement"):
        broken = getattr(table, name).copy()
        broken[3, 0] = np.nan
        with pytest.raises(SessionError, match="1 of 100 patients"):
            build_setup(evidence=replace(table, **{name: broken}), n_cases=8)
    absurd = replace(toy_evidence(100, 0), pipeline_kwh=np.array([0.0, 1e6, 0.1]))
    with pytest.raises(SessionError, match="Check the pipelines"):
        build_setup(evidence=absurd, n_cases=8)


def test_recorded_traces_and_files_are_taken(tmp_path: Path, shared_data: Path) -> None:
    file = shared_data / "carbon" / "cc_de.csv.gz"
    config = build_setup(evidence=toy_evidence(200, 0)).config
    grid = resolve_grid(file, "eval", config)
    assert grid.name == "cc_de"
    assert not grid.synthetic
    table = tmp_path / "evidence.npz"
    toy_evidence(200, 0).save(table)
    setup = build_setup(evidence=str(table), trace=str(file), period="train")
    assert setup.grid.n_starts[0] > 10_000


@pytest.mark.parametrize("n", [39, 0])
def test_the_toy_table_needs_a_few_patients(n: int) -> None:
    with pytest.raises(ValueError, match="at least 40"):
        toy_evidence(n)


def test_the_toy_table_is_synthetic_seeded_and_informative() -> None:
    one, again = toy_evidence(500, 3), toy_evidence(500, 3)
    assert one.synthetic
    assert one.logit.tobytes() == again.logit.tobytes()
    assert 0.05 < 1 - one.present[:, 1:].mean() < 0.4
    full = one.sets.index_of(["genomics->pathology", "pathology->clinical"])
    rows = one.reachable[:, full]
    pos = one.label == 1

    def auc(k: int) -> float:
        s = one.logit[:, k]
        return float(np.mean(s[rows & pos][:, None] > s[rows & ~pos]))

    assert auc(full) > auc(0) + 0.1
