"""The real cohorts, where they are: what is in them, as their card says."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.cohort import read_cohort
from distill.cohort_check import check_cohort


@pytest.mark.shared_data
class TestRealCohorts:
    def test_tcga(self, shared_data: Path) -> None:
        report = check_cohort(shared_data / "tcga_nsclc")
        assert report.clean
        assert report.patients is not None
        assert (report.patients.negative, report.patients.positive) == (418, 403)
        assert len(report.hospitals) == 56
        shapes = {row.name: (row.patients, row.columns) for row in report.modalities}
        assert shapes == {
            "clinical": (821, 14),
            "genomics": (712, 583),
            "pathology": (679, 171),
            "copy_number": (814, 39),
            "transcriptomics": (800, 461),
            "proteomics": (None, None),
        }
        assert any("No hospital contributed both" in text for text in report.warnings)

    def test_r01(self, shared_data: Path) -> None:
        report = check_cohort(shared_data / "r01_radiogenomics")
        assert report.clean
        cohort = read_cohort(shared_data / "r01_radiogenomics")
        assert (cohort.n_patients, int(cohort.label.sum())) == (172, 43)
        assert cohort.temporal is not None
        assert cohort.tables["radiomics"].shape == (117, 1316)
        assert cohort.tables["clinical"]["histology"].dtype == object
