from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import chi2_contingency, multivariate_normal, norm
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from distill.cohort import Cohort, read_cohort
from distill.cohort_check import check_cohort
from distill.cohort_write import write_cohort
from distill.errors import CohortError
from distill.synthetic import DAYS, SyntheticConfig, make_synthetic
from distill.synthetic_likelihood import (
    PRIOR_LOGIT,
    Evidence,
    best_logit,
    best_logit_blind,
    evidence_of,
    genomics_llr,
)
from distill.synthetic_model import (
    BURDEN_SHARE,
    DRIVERS,
    KAPPA,
    PREVALENCE,
    delay_quantiles,
    draw_days,
    fidelity,
    gaussian_modalities,
    genome,
)
from distill.synthetic_truth import (
    FULL,
    MODALITIES,
    N_DELAYS,
    Truth,
    all_sets,
    expected_auc,
    set_name,
)

Drawn = tuple[Cohort, Truth]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return make_synthetic(SyntheticConfig(n_simulated=40_000))


@pytest.fixture(scope="module")
def large() -> Drawn:
    return make_synthetic(
        SyntheticConfig(n_patients=8000, seed=3, n_hospitals=80, n_simulated=1000)
    )


def days_of(cohort: Cohort) -> np.ndarray:
    assert cohort.temporal is not None
    return cohort.temporal[DAYS].to_numpy(dtype=np.float64)


def evidence(cohort: Cohort) -> Evidence:
    return evidence_of(cohort.tables, days_of(cohort), cohort.case_id)


def digest(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def written(folder: Path, config: SyntheticConfig) -> dict[str, str]:
    cohort, truth = make_synthetic(config)
    write_cohort(cohort, folder, extra={"truth.json": json.dumps(truth.to_json())})
    return digest(folder)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    config = SyntheticConfig(n_patients=300, n_hospitals=24, n_simulated=4000)
    first = written(tmp_path / "a", config)
    assert first == written(tmp_path / "b", config)
    other = written(tmp_path / "c", replace(config, seed=1))
    assert set(first) == set(other)
    assert all(first[name] != other[name] for name in first)


def test_shape_of_the_default_cohort(drawn: Drawn) -> None:
    cohort, _ = drawn
    assert cohort.synthetic
    assert cohort.n_patients == 2000
    assert cohort.modalities("inference") == MODALITIES[:4]
    assert cohort.modalities("privileged") == ("proteomics",)
    widths = {name: frame.shape[1] for name, frame in cohort.tables.items()}
    assert widths == dict(zip(MODALITIES, (10, 60, 48, 40, 60), strict=True))
    assert len(set(cohort.group)) >= 24
    assert cohort.present("clinical").all()
    for name in MODALITIES[1:]:
        assert 0.5 < cohort.present(name).mean() < 0.95
        assert 0.0 < cohort.tables[name].isna().to_numpy().mean() < 0.1
    assert set(np.unique(cohort.tables["genomics"].to_numpy()[:, :5])) >= {0.0, 1.0}


def test_written_cohort_is_clean_and_reads_back_equal(drawn: Drawn, tmp_path: Path) -> None:
    cohort, _ = drawn
    folder = write_cohort(cohort, tmp_path / "cohort")
    report = check_cohort(folder)
    assert report.clean
    assert report.synthetic
    back = read_cohort(folder)
    for name, frame in cohort.tables.items():
        pd.testing.assert_frame_equal(frame, back.tables[name])
    np.testing.assert_array_equal(cohort.fold, back.fold)


def test_published_frequencies_are_met(large: Drawn) -> None:
    cohort, _ = large
    mutated, label = cohort.tables["genomics"], pd.Series(cohort.label, index=cohort.case_id)
    for gene, luad, lusc, _ in DRIVERS:
        for one, share in ((0, luad), (1, lusc)):
            cells = mutated.loc[label[mutated.index] == one, gene].dropna()
            assert abs(cells.mean() - share) < 4.5 * np.sqrt(share * (1 - share) / len(cells))
    rates = expit(genome().log_odds)
    np.testing.assert_allclose(
        np.einsum("b,cbg->cg", BURDEN_SHARE, rates), genome().share, atol=1e-8
    )


class TestLikelihood:
    """The closed forms against the plain definition."""

    @pytest.mark.parametrize(
        "chosen",
        [("pathology",), ("radiomics",), ("pathology", "radiomics"), MODALITIES[2:]],
    )
    def test_measured_modalities(self, drawn: Drawn, chosen: tuple[str, ...]) -> None:
        cohort, _ = drawn
        has = np.logical_and.reduce([cohort.present(name) for name in chosen])
        part = cohort.subset(np.flatnonzero(has)[:4])
        found = best_logit(evidence(part), chosen)
        for i, case in enumerate(part.case_id):
            shown = fidelity(days_of(part)[i : i + 1])[0]
            x, signal, blocks = [], [], []
            for name in chosen:
                model = gaussian_modalities()[name]
                row = part.tables[name].loc[case].to_numpy()
                keep = ~np.isnan(row)
                u = model.loadings[:, keep]
                x.append(((row - model.location) / model.scale)[keep])
                signal.append((shown if name == "radiomics" else 1.0) * model.signal[keep])
                blocks.append(np.eye(int(keep.sum())) + u.T @ u)
            cell, direction = np.concatenate(x), np.concatenate(signal)
            noise = np.zeros((cell.size, cell.size))
            start = 0
            for block in blocks:
                stop = start + len(block)
                noise[start:stop, start:stop] = block
                start = stop
            covariance = noise + np.outer(direction, direction)
            densities = [
                multivariate_normal(sign * KAPPA / 2 * direction, covariance).logpdf(cell)
                for sign in (-1, 1)
            ]
            assert found[i] == pytest.approx(PRIOR_LOGIT + densities[1] - densities[0], abs=1e-8)

    def test_mutations(self, drawn: Drawn) -> None:
        rows = drawn[0].tables["genomics"].to_numpy()[:10]
        rates = expit(genome().log_odds)
        for row, found in zip(rows, genomics_llr(rows), strict=True):
            keep = ~np.isnan(row)
            cells = np.where(row[keep] == 1.0, rates[:, :, keep], 1 - rates[:, :, keep])
            by_class = cells.prod(axis=2) @ np.array(BURDEN_SHARE)
            assert found == pytest.approx(np.log(by_class[1] / by_class[0]), abs=1e-9)

    def test_blind_to_time_is_the_mixture_over_days(self, drawn: Drawn) -> None:
        cohort, _ = drawn
        part = cohort.subset(np.flatnonzero(cohort.present("radiomics"))[:5])
        days = delay_quantiles(8)
        found = best_logit_blind(evidence(part), ("radiomics",), days)
        model = gaussian_modalities()["radiomics"]
        for i, case in enumerate(part.case_id):
            row = part.tables["radiomics"].loc[case].to_numpy()
            keep = ~np.isnan(row)
            x = ((row - model.location) / model.scale)[keep]
            u = model.loadings[:, keep]
            likelihood = np.zeros(2)
            for shown in fidelity(days):
                direction = shown * model.signal[keep]
                noise = np.eye(x.size) + u.T @ u + np.outer(direction, direction)
                for one, sign in enumerate((-1, 1)):
                    density = multivariate_normal(sign * KAPPA / 2 * direction, noise)
                    likelihood[one] += density.pdf(x) * 1e20
            expected = PRIOR_LOGIT + np.log(likelihood[1] / likelihood[0])
            assert found[i] == pytest.approx(expected, abs=1e-7)

    def test_a_missing_modality_is_nan_and_a_missing_cell_is_not(self, drawn: Drawn) -> None:
        cohort, _ = drawn
        for name in MODALITIES:
            found = best_logit(evidence(cohort), (name,))
            np.testing.assert_array_equal(np.isfinite(found), cohort.present(name))

    @pytest.mark.parametrize("chosen", [("clinical",), ("genomics",), MODALITIES[:4], MODALITIES])
    def test_probabilities_are_calibrated(self, large: Drawn, chosen: tuple[str, ...]) -> None:
        cohort, _ = large
        score = best_logit(evidence(cohort), chosen)
        has = np.isfinite(score)
        p, y = expit(score[has]), cohort.label[has]
        order = np.argsort(p)
        for part in np.array_split(order, 10):
            gap = y[part].mean() - p[part].mean()
            assert abs(gap) < 4 * np.sqrt((p[part] * (1 - p[part])).sum()) / part.size


def test_expected_auc_of_two_gaussians() -> None:
    rng = np.random.default_rng(0)
    distance = 1.7
    label = rng.random(200_000) < 0.3
    score = distance**2 * (label - 0.5) + distance * rng.standard_normal(label.size)
    found = expected_auc(score, score + logit(0.3))
    assert found == pytest.approx(norm.cdf(distance / np.sqrt(2)), abs=0.002)
    assert found == pytest.approx(roc_auc_score(label, score), abs=0.006)
    assert expected_auc(np.zeros(9), np.linspace(-1, 1, 9)) == pytest.approx(0.5)


class TestTruth:
    def test_agrees_with_the_patients(self, drawn: Drawn, large: Drawn) -> None:
        _, expected = drawn
        for _, found in (drawn, large):
            for name in map(set_name, all_sets()):
                here = found.best[name].auc_here
                assert here.value is not None
                assert here.ci95 is not None
                half_width = (here.ci95[1] - here.ci95[0]) / 2
                best = expected.best[name]
                # Four standard errors: 31 sets, and hospitals shift together.
                assert abs(here.value - (best.auc.value or 0)) < 4 / 1.96 * half_width, name

    def test_ranges(self, drawn: Drawn) -> None:
        _, truth = drawn
        assert truth.auc_for(["clinical"]) == pytest.approx(0.67, abs=0.02)
        assert 0.85 < truth.auc_for(["pathology"]) < 0.9
        assert 0.75 < truth.auc_for(["radiomics"]) < 0.8
        assert truth.auc_for(["proteomics"]) == pytest.approx(0.97, abs=0.005)
        assert truth.auc_for(MODALITIES) < 0.99
        singles = {name: truth.auc_for([name]) for name in MODALITIES[:4]}
        assert max(singles, key=lambda name: singles[name]) == "pathology"

    def test_more_evidence_never_hurts(self, drawn: Drawn) -> None:
        _, truth = drawn
        for chosen in all_sets():
            for name in set(MODALITIES) - set(chosen):
                slack = 3 * truth.best[set_name(chosen)].standard_error
                assert truth.auc_for((*chosen, name)) > truth.auc_for(chosen) - slack

    def test_time_matters_where_radiomics_is(self, drawn: Drawn) -> None:
        _, truth = drawn
        for chosen in all_sets():
            best = truth.best[set_name(chosen)]
            told, blind = best.auc.value or 0, best.auc_time_blind.value or 0
            if "radiomics" in chosen:
                assert blind <= told + 1e-4
            else:
                assert blind == told
        radiomics = truth.best["radiomics"]
        assert (radiomics.auc.value or 0) - (radiomics.auc_time_blind.value or 0) > 0.01

    def test_full_input_lies_between_its_parts(self, drawn: Drawn) -> None:
        cohort, truth = drawn
        full = truth.full
        assert truth.best[FULL] is full
        assert truth.auc_for(["clinical"]) < (full.auc.value or 0)
        assert (full.auc.value or 0) < truth.auc_for(cohort.modalities("inference"))
        assert full.auc_here.n == cohort.n_patients
        assert full.auc_here.ci95 is not None
        assert full.auc_here.ci95[0] < (full.auc.value or 0) < full.auc_here.ci95[1]

    def test_json_round_trip(self, drawn: Drawn, tmp_path: Path) -> None:
        _, truth = drawn
        (tmp_path / "truth.json").write_text(json.dumps(truth.to_json()))
        assert Truth.load(tmp_path) == truth
        raw = truth.to_json()
        assert raw["synthetic"] is True
        assert set(raw["evidence"]["clinical+genomics"]["auc"]) == {"value", "ci95", "n"}
        (tmp_path / "truth.json").write_text("{}")
        with pytest.raises(CohortError, match="not the truth of a synthetic cohort"):
            Truth.load(tmp_path)

    def test_names_in_any_order(self, drawn: Drawn) -> None:
        _, truth = drawn
        assert truth.auc_for(["pathology", "clinical"]) == truth.auc_for(["clinical", "pathology"])
        with pytest.raises(CohortError, match="unknown modality 'histology'; the synthetic"):
            truth.auc_for(["histology"])
        with pytest.raises(CohortError, match="no modality"):
            truth.auc_for([])


class TestNothingLeaks:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_hospital_and_missingness_say_nothing_of_the_label(self, seed: int) -> None:
        cohort, _ = make_synthetic(SyntheticConfig(seed=seed, n_simulated=1000))
        label = pd.Series(cohort.label)
        table = pd.crosstab(pd.Series(cohort.group), label)
        assert chi2_contingency(table).pvalue > 1e-3
        for name in MODALITIES[1:]:
            table = pd.crosstab(pd.Series(cohort.present(name)), label)
            assert chi2_contingency(table).pvalue > 1e-3
            cells = cohort.tables[name].isna().sum(axis=1)
            own = label.set_axis(list(cohort.case_id))[cells.index]
            assert abs(np.corrcoef(cells, own)[0, 1]) < 4 / np.sqrt(len(own))
        assert abs(cohort.label.mean() - PREVALENCE) < 0.05

    def test_missingness_differs_between_hospitals(self, large: Drawn) -> None:
        cohort, _ = large
        share = pd.Series(cohort.present("radiomics")).groupby(list(cohort.group)).mean()
        assert (share == 0).sum() >= 1
        table = pd.crosstab(pd.Series(cohort.group), cohort.present("pathology"))
        assert chi2_contingency(table).pvalue < 1e-3

    def test_hospitals_shift_pathology_and_radiomics_only(self, drawn: Drawn) -> None:
        cohort, _ = drawn
        group = pd.Series(cohort.group, index=cohort.case_id)
        shift = {}
        for name, model in gaussian_modalities().items():
            rows = (cohort.tables[name] - model.location) / model.scale
            means = rows.groupby(group[rows.index]).agg(["mean", "count"])
            mean = means.xs("mean", axis=1, level=1).to_numpy()
            count = means.xs("count", axis=1, level=1).to_numpy()
            shift[name] = float((mean * np.sqrt(count)).var(axis=0).mean())
        assert shift["pathology"] > 10
        assert shift["radiomics"] > 5
        assert shift["proteomics"] < 4


def test_days_follow_the_law_that_stands_for_them() -> None:
    drawn_days = draw_days(200_000, np.random.default_rng(0))
    assert drawn_days.min() == 3
    assert drawn_days.max() == 180
    shown = fidelity(drawn_days)
    approximate = fidelity(delay_quantiles(N_DELAYS))
    assert shown.mean() == pytest.approx(approximate.mean(), abs=0.004)
    assert shown.std() == pytest.approx(approximate.std(), abs=0.004)


def test_a_plain_learner_comes_near_the_optimum(drawn: Drawn) -> None:
    cohort, truth = drawn
    label = pd.Series(cohort.label, index=cohort.case_id)
    fold = pd.Series(cohort.fold, index=cohort.case_id)
    for name in ("genomics", "pathology", "proteomics"):
        rows = cohort.tables[name]
        own, held = label[rows.index], fold[rows.index]
        score = pd.Series(0.0, index=rows.index)
        for k in range(5):
            model = make_pipeline(
                SimpleImputer(), StandardScaler(), LogisticRegression(C=0.01, max_iter=500)
            )
            model.fit(rows[held != k], own[held != k])
            score[held == k] = model.decision_function(rows[held == k])
        best = truth.best[name].auc_here.value
        assert best is not None
        assert best - 0.03 < roc_auc_score(own, score) <= best + 0.005


class TestConfig:
    def test_all_five_may_be_inference(self) -> None:
        config = SyntheticConfig(n_patients=150, n_hospitals=24, privileged=(), n_simulated=1000)
        cohort, truth = make_synthetic(config)
        assert cohort.modalities("inference") == MODALITIES
        assert truth.full.auc.value is not None

    @pytest.mark.parametrize(
        ("wrong", "expected"),
        [
            ({"privileged": ("clinical",)}, "'clinical' cannot be privileged; allowed are gen"),
            ({"privileged": ("histology",)}, "'histology' cannot be privileged"),
            ({"n_patients": 50}, "n_patients is 50; it must be 100 or more"),
            ({"seed": -1}, "seed is -1"),
            ({"n_hospitals": 3}, "as many hospitals as folds"),
            ({"n_simulated": 10}, "n_simulated is 10"),
        ],
    )
    def test_refuses(self, wrong: dict[str, object], expected: str) -> None:
        with pytest.raises(CohortError, match=expected):
            replace(SyntheticConfig(), **wrong)  # type: ignore[arg-type]
