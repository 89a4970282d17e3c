"""A whole comparison on a toy table."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.compare import CompareConfig, compare_policies
from agent.errors import ComparisonError, PolicyError
from agent.report.model import METRICS, ComparisonReport
from agent.report.render import write_report
from agent.sessions import SessionSource
from envs.config import SessionConfig
from envs.toy import toy_evidence

CREATED = datetime(2026, 1, 2, tzinfo=UTC)


def source() -> SessionSource:
    return SessionSource.of_evidence(toy_evidence(200), config=SessionConfig(n_cases=12))


def compare(out: Path, *, of: SessionSource | None = None, **settings: object) -> ComparisonReport:
    given = {
        "sessions": 12, "training_seeds": 2, "ppo_steps": 1, "replicates": 100,
        "algorithms": ("maskable-ppo",), **settings,
    }  # fmt: skip
    config = CompareConfig(**given)  # type: ignore[arg-type]
    stages: set[str] = set()
    report = compare_policies(
        of or source(), config, out, command="again", created=CREATED,
        progress=lambda stage, _n, _total: stages.add(stage),
    )  # fmt: skip
    assert stages
    return report


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[ComparisonReport, Path]:
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.contestants.CALIBRATION_SESSIONS", 4)
        return compare(out), out


def test_the_default_compares_every_kind_of_policy(
    full: tuple[ComparisonReport, Path],
) -> None:
    report, out = full
    assert [policy.name for policy in report.policies] == [
        "never", "always:genomics->pathology", "always:clinical->genomics",
        "always:pathology->clinical", "always-everything", "random", "rule", "myopic", "price",
        "feedback", "dp", "mpc", "planner", "maskable-ppo",
    ]  # fmt: skip
    assert all(set(policy.figures) == set(METRICS) for policy in report.policies)
    assert report.policy("maskable-ppo").training_seeds == 2
    assert report.policy("maskable-ppo").figures["reward"].n == 24
    assert sorted(p.name for p in (out / "policies").iterdir()) == [
        "dp-fold4", "feedback-fold4", "maskable-ppo-fold4-seed0", "maskable-ppo-fold4-seed1",
        "mpc-fold4", "planner-fold4", "price-fold4",
    ]  # fmt: skip


def test_no_policy_beats_the_bounds_in_expectation(full: tuple[ComparisonReport, Path]) -> None:
    report, _ = full
    expected = report.bounds["expected_lp"].auc_gain.value
    assert report.bounds["clairvoyant_lp"].auc_gain.value >= expected
    # On average over many sessions; twelve may be luckier with their scores.
    assert all(p.figures["expected_gain"].value <= expected + 0.02 for p in report.policies)


def test_differences_to_itself_are_nil(full: tuple[ComparisonReport, Path]) -> None:
    report, _ = full
    itself = report.policy("rule").versus["rule"]["reward"]
    assert (itself.value, itself.low, itself.high) == (0.0, 0.0, 0.0)
    assert not report.policy(str(report.best_planner)).learned


def test_the_report_is_written_and_valid(full: tuple[ComparisonReport, Path]) -> None:
    report, out = full
    page, figures = write_report(report, out)
    data = json.loads(figures.read_text())
    assert data["provenance"]["created_utc"] == "2026-01-02T00:00:00+00:00"
    assert data["policies"]["price"]["details"]["4"]["price"]["n_calibration_sessions"] == 4
    assert page.stat().st_size < 2_000_000


def test_the_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    names = ("random", "rule")
    first, second = (compare(tmp_path / x, policies=names) for x in "ab")
    assert first.to_json(()) == second.to_json(())


def test_all_folds_are_rotated(tmp_path: Path) -> None:
    report = compare(tmp_path, policies=("rule", "never"), folds=(0, 3))
    assert list(report.policies[0].folds) == ["0", "3"]
    assert report.policies[0].figures["reward"].n == 24
    assert set(report.policy("rule").to_json()["details"]) == {"0", "3"}


def test_a_policy_directory_takes_part_but_not_on_its_own_patients(
    full: tuple[ComparisonReport, Path], tmp_path: Path
) -> None:
    _, out = full
    directory = str(out / "policies" / "maskable-ppo-fold4-seed0")
    report = compare(tmp_path, policies=("rule", directory))
    assert report.policies[1].learned
    assert report.policies[1].name == "maskable-ppo-fold4-seed0"
    with pytest.raises(ComparisonError, match="would flatter it"):
        compare(tmp_path, policies=("rule", directory), folds=(0,))


def another_bundle(prefix: str) -> SessionSource:
    """The same cohort in another bundle: other scores, other hash."""
    table = toy_evidence(200, seed=5)
    names = tuple(f"{prefix}{case}" for case in table.case_id)
    return SessionSource.of_evidence(
        replace(table, case_id=names),
        config=SessionConfig(n_cases=12),
        facts={"evidence_sha256": "0" * 64},
    )


def test_a_policy_of_another_bundle_is_refused_if_it_knows_the_patients(
    full: tuple[ComparisonReport, Path], tmp_path: Path
) -> None:
    """Folds of another bundle say nothing; case ids do."""
    directory = str(full[1] / "policies" / "maskable-ppo-fold4-seed0")
    with pytest.raises(ComparisonError, match=r"of the \d+ patients of fold 0 \(by case id\)"):
        compare(tmp_path, policies=("rule", directory), folds=(0,), of=another_bundle(""))


def test_a_policy_of_other_patients_takes_part_and_the_report_says_so(
    full: tuple[ComparisonReport, Path], tmp_path: Path
) -> None:
    directory = str(full[1] / "policies" / "maskable-ppo-fold4-seed0")
    report = compare(tmp_path, policies=("rule", directory), of=another_bundle("other-"))
    assert any(
        "maskable-ppo-fold4-seed0 was trained on another bundle" in line for line in report.limits
    )
    assert not any("another bundle" in line for line in full[0].limits)


def test_a_policy_that_does_not_say_its_patients_is_known_in_its_own_bundle_only(
    full: tuple[ComparisonReport, Path], tmp_path: Path
) -> None:
    """Earlier versions kept folds alone."""
    for name in ("policy.json", "weights.safetensors"):
        (tmp_path / name).write_bytes(
            (full[1] / "policies/maskable-ppo-fold4-seed0" / name).read_bytes()
        )
    stored = json.loads((tmp_path / "policy.json").read_text())
    del stored["patients"]
    (tmp_path / "policy.json").write_text(json.dumps(stored))
    policies = ("rule", str(tmp_path))
    assert compare(tmp_path / "r", policies=policies).policies[1].learned
    with pytest.raises(ComparisonError, match="would flatter it"):
        compare(tmp_path / "s", policies=policies, folds=(0,))
    with pytest.raises(ComparisonError, match="does not say which patients"):
        compare(tmp_path / "t", policies=policies, of=another_bundle("other-"))


def test_changed_hashes_of_patients_are_refused(
    full: tuple[ComparisonReport, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "ppo"
    shutil.copytree(full[1] / "policies" / "maskable-ppo-fold4-seed0", copy)
    (copy / "training_ids.json").write_text('{"sha256": []}')
    with pytest.raises(PolicyError, match=r"training_ids\.json: its bytes have changed"):
        compare(tmp_path / "r", policies=("rule", str(copy)), folds=(0,))
    (copy / "training_ids.json").unlink()
    with pytest.raises(PolicyError, match="Copy the whole policy folder"):
        compare(tmp_path / "r", policies=("rule", str(copy)))


def test_a_foreign_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ComparisonError, match="holds other things than a report"):
        compare(tmp_path, policies=("rule",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folds": (9,)}, "Fold 9 cannot be held out"),
        ({"policies": ("rule", "rule")}, "'rule' was asked for twice"),
        ({"policies": ()}, "No policy was named"),
    ],
)
def test_bad_requests_get_one_clear_error(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ComparisonError, match=message):
        compare(tmp_path, **settings)


def test_an_unknown_policy_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="Did you mean 'price'"):
        compare(tmp_path, policies=("prize",))
    assert not list(tmp_path.iterdir())
