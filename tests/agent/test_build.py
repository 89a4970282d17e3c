from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from agent.build import build_bundle, pipeline_energies_kwh, transfer_energy_kwh
from carbon.entries import LedgerEntry
from carbon.ledger import Ledger
from carbon.monitor import CarbonMonitor, build_monitor
from carbon.pipeline import PipelineAssumptions
from distill.cohort_write import write_cohort
from distill.config import TrainConfig
from distill.errors import BundleError, CohortError
from distill.evidence import EvidenceTable
from distill.runtime import StudentRuntime
from distill.synthetic import SyntheticConfig, make_synthetic

CREATED = datetime(2024, 5, 1, tzinfo=UTC)
FAST = replace(
    TrainConfig.preset("quick", threads=1),
    epochs=2, screen_to=8, screen_trees=5, boosting_rounds=8, synthetic_rows=64, width=8,
    latent=4, token=8, heads=2, calibration_folds=1,
)  # fmt: skip


def monitor(ledger: Path | None = None) -> CarbonMonitor:
    from carbon.intensity.build import GridConfig

    return build_monitor(GridConfig(sources=("synthetic",)), meter="modelled", ledger=ledger)


@pytest.fixture(scope="module")
def cohort_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cohorts") / "synthetic"
    privileged = ("proteomics", "radiomics")
    config = SyntheticConfig(n_patients=240, n_hospitals=15, n_simulated=1000,
                             privileged=privileged)  # fmt: skip
    write_cohort(make_synthetic(config)[0], path)
    return path


def test_trains_under_the_monitor_and_prices_the_pipelines(cohort_path: Path, tmp_path: Path):
    ledger = tmp_path / "ledger.jsonl"
    steps: list[int] = []
    record = build_bundle(
        cohort_path, tmp_path / "bundle", config=FAST, monitor=monitor(ledger), created=CREATED,
        progress=lambda finished, total, stage: steps.append(finished),
    )  # fmt: skip
    metrics = json.loads((tmp_path / "bundle" / "metrics.json").read_text())
    assert metrics["training"] == json.loads(json.dumps(record))
    assert record["energy_kwh"]["value"] > 0
    assert record["energy_kwh"]["basis"] == "modelled"
    assert record["g_co2e"]["value"] > 0
    assert record["intensity"]["provider"].startswith("synthetic")
    booked = [entry for entry in Ledger(ledger).entries() if isinstance(entry, LedgerEntry)]
    assert [entry.stage for entry in booked] == ["train"]
    table = EvidenceTable.load(tmp_path / "bundle" / "evidence.npz")
    assert table.pipeline_kwh[0] == pytest.approx(0.0, abs=0.01)
    assert (table.pipeline_kwh[1:] > 0).all()
    assert np.allclose(table.transfer_kwh, transfer_energy_kwh())
    assert StudentRuntime.open(tmp_path / "bundle").synthetic
    assert steps == sorted(steps)


def test_a_machine_that_draws_more_costs_more(cohort_path: Path):
    from distill.cohort import read_cohort

    cohort = read_cohort(cohort_path)
    default = pipeline_energies_kwh(cohort)
    hungry = pipeline_energies_kwh(cohort, PipelineAssumptions(w_per_core=24.0))
    assert hungry["genomics"] > default["genomics"]
    assert list(default) == list(cohort.modalities("inference"))


def test_an_undeclared_pipeline_is_refused_before_training(cohort_path: Path, tmp_path: Path):
    from distill.cohort import read_cohort

    cohort = read_cohort(cohort_path)
    modality = dict(cohort.manifest.modality)
    modality["genomics"] = modality["genomics"].model_copy(update={"pipeline": None})
    manifest = cohort.manifest.model_copy(update={"modality": modality})
    with pytest.raises(CohortError, match="declares no pipeline"):
        pipeline_energies_kwh(replace(cohort, manifest=manifest))


def test_a_target_that_is_not_a_bundle_is_refused_before_anything_is_read(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="is not a bundle"):
        build_bundle(
            tmp_path / "no_cohort", tmp_path, config=FAST, monitor=monitor(), created=CREATED
        )
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
