from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from distill.calibrate import lacking
from distill.cautions import NO_RANGES
from distill.cohort import Cohort
from distill.errors import FeatureError
from distill.evaluate import evaluate_bundle
from distill.fit import features_of
from distill.masks import set_masks
from distill.runtime import StudentRuntime
from distill.train import Trained


@pytest.fixture(scope="module")
def runtime(bundle_path: Path) -> StudentRuntime:
    return StudentRuntime.open(bundle_path)


def row_of(cohort: Cohort, case: str) -> dict[str, dict[str, object] | None]:
    return {
        name: frame.loc[case].to_dict() if case in frame.index else None
        for name, frame in cohort.tables.items()
        if name != "proteomics"
    }


def complete_case(cohort: Cohort) -> str:
    return next(c for c in cohort.case_id if all(row_of(cohort, c).values()))


def test_opens_and_scores_without_torch_pandas_or_sklearn(bundle_path: Path):
    code = (
        "import sys; from pathlib import Path; from distill.runtime import StudentRuntime;"
        f"r = StudentRuntime.open(Path({str(bundle_path)!r}));"
        "r.assess(r.prepare({'clinical': {'age': 60}}));"
        "assert not {'torch', 'pandas', 'sklearn', 'lightgbm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_itself(runtime: StudentRuntime):
    assert runtime.modalities == ("clinical", "genomics", "pathology")
    assert runtime.transfers[0].name == "genomics->pathology"
    assert runtime.cohort_name == "tiny"
    assert runtime.synthetic
    assert runtime.classes == ("A", "B")
    assert len(runtime.bundle_version) == 12


def test_one_case_agrees_with_torch_and_calibration(
    runtime: StudentRuntime, trained: Trained, tiny_cohort: Cohort
):
    case = complete_case(tiny_cohort)
    data, student = trained.data, trained.student
    at = tiny_cohort.case_id.index(case)
    x = features_of(data, student.preprocessors, student.shape.features)[at : at + 1]
    masks = set_masks(trained.sets, data.modalities)
    k = trained.sets.index_of(["genomics->pathology", "clinical->genomics"])
    expected = student.logits(x, masks[None])[0][0, k] / trained.calibration.of_masks(masks)[k]
    prepared = runtime.prepare(row_of(tiny_cohort, case))
    got = runtime.assess(prepared, ["clinical->genomics", "genomics->pathology"])
    assert got.logit == pytest.approx(expected, abs=1e-4)
    assert got.probability == pytest.approx(expit(expected), abs=1e-4)
    assert got.processed == ("clinical", "genomics")
    assert got.missing == ()
    assert set(got.token_logit) == {"clinical", "genomics", "genomics->pathology",
                                    "clinical->genomics"}  # fmt: skip
    assert got.disagreement == pytest.approx(np.std(list(got.token_logit.values())), abs=1e-5)
    assert 0 < sum(got.attention.values()) < 1


def test_clinical_alone_is_scored_and_the_rest_is_named_missing(runtime: StudentRuntime):
    prepared = runtime.prepare({"clinical": {"age": 70, "stage": "ii"}, "genomics": None})
    got = runtime.assess(prepared)
    assert 0 < got.probability < 1
    assert got.processed == ("clinical",)
    assert got.missing == ("genomics", "pathology")
    assert got.disagreement == 0.0
    assert prepared.present == ("clinical",)
    assert prepared.quality == {"clinical": 1.0}


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"clinical": {"age": 60}, "patholgy": {}}, "1 of 2 modality names .* mean 'pathology'"),
        ({"clinical": {"agee": 60}}, "Did you mean 'age'"),
        ({"genomics": {"G1": 1}}, "no clinical features"),
        ({"clinical": {}}, "no clinical features"),
        ({"clinical": {"age": None, "stage": ""}}, "no clinical features"),
        ({"clinical": {"age": "sixty"}}, "clinical: .* a number is expected"),
        ({"clinical": {"age": 60}, "genomics": {"G1": True}}, "genomics: .* is true or false"),
    ],
)
def test_bad_cases_get_one_clear_error(runtime: StudentRuntime, features, message):
    with pytest.raises(FeatureError, match=message):
        runtime.prepare(features)


def test_a_modality_without_values_is_missing(runtime: StudentRuntime):
    empty = {"clinical": {"age": 60}, "genomics": {"G1": None}, "pathology": {}}
    prepared = runtime.prepare(empty)
    assert prepared.present == ("clinical",)
    assert runtime.assess(prepared).missing == ("genomics", "pathology")
    with pytest.raises(FeatureError, match="needs genomics"):
        runtime.assess(prepared, ["genomics->pathology"])
    assert np.array_equal(prepared.x, runtime.prepare({"clinical": {"age": 60}}).x)


def test_training_patients_give_no_cautions(runtime: StudentRuntime, tiny_cohort: Cohort):
    for case in tiny_cohort.case_id:
        assert runtime.prepare(row_of(tiny_cohort, case)).cautions == ()


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"clinical": {"age": -1e6}}, ["clinical: 1 value is far outside", "'age' ("]),
        (
            {"clinical": {"age": 60, "stage": "III"}},
            ["clinical: 1 word is rare", "'stage' (i, ii)"],
        ),
        (
            {"clinical": {"age": 60}, "genomics": {"G0": 700_000, "G1": -3, "G2": 1}},
            ["genomics: 2 values are far outside", "'G0' (0 to 1), 'G1' (0 to 1)"],
        ),
    ],
)
def test_unusual_values_are_told_and_never_repeated(runtime: StudentRuntime, features, words):
    (caution,) = runtime.prepare(features).cautions
    assert all(word in caution for word in words)
    assert not any(value in caution for value in ("700", "-1e", "-1000000", "III", "-3"))


def test_a_bundle_without_spans_says_that_it_cannot_tell(runtime: StudentRuntime):
    old = replace(
        runtime,
        preprocessors=tuple(replace(p, spans_known=False) for p in runtime.preprocessors),
    )
    features = {"clinical": {"age": 1e6}}
    assert old.prepare(features).cautions == (NO_RANGES,)
    assert np.array_equal(old.prepare(features).x, runtime.prepare(features).x)


def test_transfers_need_their_source(runtime: StudentRuntime):
    prepared = runtime.prepare({"clinical": {"age": 60}})
    with pytest.raises(FeatureError, match="needs genomics"):
        runtime.assess(prepared, ["genomics->pathology"])
    with pytest.raises(FeatureError, match="Unknown transfer"):
        runtime.assess(prepared, ["genomics->histology"])


def test_scores_in_chunks_equal_scores_at_once(
    runtime: StudentRuntime, trained: Trained, monkeypatch: pytest.MonkeyPatch
):
    data = trained.data
    x = features_of(data, trained.student.preprocessors, trained.student.shape.features)
    masks = set_masks(trained.sets, data.modalities)
    whole = runtime.score(x, masks[None])
    monkeypatch.setattr("distill.runtime.SCORE_CELLS", 64 * 9 * 7)
    parts = runtime.score(x, masks[None])
    own = runtime.score(x, np.repeat(masks[None], len(x), axis=0))
    assert np.allclose(whole.logit, parts.logit, atol=1e-5)
    assert np.allclose(whole.logit, own.logit, atol=1e-5)
    assert np.allclose(whole.disagreement, own.disagreement, atol=1e-5)
    assert not lacking(masks[:1], data.present()).any()


@pytest.fixture(scope="module")
def unseen(make_cohort: Callable[..., Cohort]) -> Cohort:
    return make_cohort(seed=9, patients=120, prefix="U")


def test_evaluates_unseen_patients_with_the_same_keys(runtime: StudentRuntime, unseen: Cohort):
    figures = evaluate_bundle(runtime, unseen)
    assert figures["full"]["auc"]["value"] > 0.75
    assert figures["full"]["auc"]["n"] == 120
    over = figures["full"]["auc_over_hospitals"]
    assert over["value"] == pytest.approx(figures["full"]["auc"]["value"])
    assert over["ci95"][0] < over["value"] < over["ci95"][1]
    nameless = unseen.manifest.label.model_copy(update={"group": None})
    manifest = unseen.manifest.model_copy(update={"label": nameless})
    alone = evaluate_bundle(runtime, replace(unseen, manifest=manifest))["full"]
    assert alone["auc"] == figures["full"]["auc"]
    assert alone["auc_over_hospitals"]["reason"] == "the cohort names no hospitals"
    assert len(figures["evidence"]) == 64
    assert figures["single"]["pathology"]["auc"]["n"] == unseen.present("pathology").sum()
    assert figures["seen_in_training"] == 0


def test_column_order_and_unknown_columns_do_not_matter(runtime: StudentRuntime, unseen: Cohort):
    pathology = unseen.tables["pathology"]
    turned = pathology[list(reversed(pathology.columns))].assign(extra=1.0)
    changed = replace(unseen, tables={**unseen.tables, "pathology": turned})
    before, after = evaluate_bundle(runtime, unseen), evaluate_bundle(runtime, changed)
    assert before["full"] == after["full"]
    assert any("1 unknown columns ignored (extra)" in note for note in after["notes"])


def test_missing_columns_are_named(runtime: StudentRuntime, unseen: Cohort):
    less = unseen.tables["genomics"].drop(columns=["G3", "G4"])
    with pytest.raises(FeatureError, match="modality genomics: 2 columns are missing: 'G3', 'G4'"):
        evaluate_bundle(runtime, replace(unseen, tables={**unseen.tables, "genomics": less}))


def test_one_class_gives_null_with_a_reason(runtime: StudentRuntime, unseen: Cohort):
    figures = evaluate_bundle(runtime, unseen.subset(unseen.label == 1))
    assert figures["full"]["auc"]["value"] is None
    assert "only one class" in figures["full"]["auc"]["reason"]


def test_a_cohort_without_a_modality_is_evaluated_on_the_rest(
    runtime: StudentRuntime, unseen: Cohort
):
    tables = {k: v for k, v in unseen.tables.items() if k != "genomics"}
    figures = evaluate_bundle(runtime, replace(unseen, tables=tables))
    assert figures["single"]["genomics"]["auc"]["value"] is None
    assert figures["full"]["auc"]["n"] == 120


def test_training_patients_are_recognised_and_other_classes_refused(
    runtime: StudentRuntime, tiny_cohort: Cohort
):
    figures = evaluate_bundle(runtime, tiny_cohort)
    assert figures["seen_in_training"] == 200
    assert any("were in training" in note for note in figures["notes"])
    label = tiny_cohort.manifest.label.model_copy(update={"positive": "C"})
    manifest = tiny_cohort.manifest.model_copy(update={"label": label})
    with pytest.raises(FeatureError, match="trained for 'B' against 'A'"):
        evaluate_bundle(runtime, replace(tiny_cohort, manifest=manifest))


def test_who_has_no_known_value_of_a_modality_lacks_it(runtime: StudentRuntime, unseen: Cohort):
    pathology = unseen.tables["pathology"].copy()
    pathology.iloc[:3] = np.nan
    emptied = replace(unseen, tables={**unseen.tables, "pathology": pathology.assign(extra=1.0)})
    without = replace(unseen, tables={**unseen.tables, "pathology": pathology.iloc[3:]})
    got, expected = evaluate_bundle(runtime, emptied), evaluate_bundle(runtime, without)
    assert got["full"] == expected["full"]
    assert got["single"] == expected["single"]
    assert "pathology: 3 patients have no value in it; it is missing" in got["notes"]
    clinical = unseen.tables["clinical"].copy()
    clinical.iloc[0] = None
    imputed = evaluate_bundle(
        runtime, replace(unseen, tables={**unseen.tables, "clinical": clinical})
    )
    assert "clinical: 1 patients have no value in it; imputed" in imputed["notes"]
    assert imputed["full"]["auc"]["n"] == expected["full"]["auc"]["n"]
