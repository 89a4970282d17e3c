from __future__ import annotations

from datetime import UTC, datetime

import pytest

from carbon.errors import UnitError
from carbon.intensity.fixed import TYPICAL_HOURLY_CV, FixedSource
from carbon.intensity.protocol import make_basis

AT = datetime(2024, 1, 2, tzinfo=UTC)


def test_its_age_runs_from_the_year_it_was_published_for() -> None:
    source = FixedSource(
        207.0, zone="GB", basis=make_basis(), origin="a government table",
        as_of=datetime(2024, 1, 1, tzinfo=UTC), uncertainty_g_per_kwh=5.0,
    )  # fmt: skip
    reading = source.now(AT)
    assert reading.age_s == 86_400.0
    assert reading.kind == "estimated"
    assert "a government table" in reading.note
    assert reading.uncertainty_g_per_kwh == 5.0


def test_an_assumed_spread_says_that_it_is_assumed() -> None:
    reading = FixedSource(100.0, zone="GB", basis=make_basis(), origin="x").now(AT)
    assert reading.uncertainty_g_per_kwh == pytest.approx(100 * TYPICAL_HOURLY_CV)
    assert "assumed" in reading.note


def test_a_negative_figure_is_refused() -> None:
    with pytest.raises(UnitError):
        FixedSource(-1.0, zone="GB", basis=make_basis(), origin="x").now(AT)
