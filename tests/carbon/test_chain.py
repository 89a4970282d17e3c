from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from carbon.errors import BasisError, IntensityError, UnitError
from carbon.intensity.chain import ChainSource
from carbon.intensity.fixed import FixedSource
from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    make_basis,
    require_one_basis,
)
from carbon.intensity.synthetic import SyntheticSource

AT = datetime(2024, 1, 1, tzinfo=UTC)
BASIS = make_basis("average", "direct", "consumption")


class Flaky:
    def __init__(self, *, fail: bool = True, basis: Basis = BASIS) -> None:
        self.fail = fail
        self.basis = basis
        self.asked = 0

    @property
    def name(self) -> str:
        return "flaky"

    def now(self, at: datetime) -> IntensityReading:
        self.asked += 1
        if self.fail:
            raise IntensityError("the line is cut")
        return FixedSource(7.0, zone="F", basis=self.basis, origin="flaky").now(at)

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        return (self.now(at),) * hours


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def fixed(basis: Basis = BASIS) -> FixedSource:
    return FixedSource(100.0, zone="GB", basis=basis, origin="a table")


def test_the_first_that_answers_is_left_as_it_is() -> None:
    chain = ChainSource([fixed(), SyntheticSource(basis=BASIS)])
    assert chain.now(AT) == fixed().now(AT)
    assert chain.forecast(AT, 3) == fixed().forecast(AT, 3)
    assert chain.name == "fixed > synthetic:seed-0"
    assert chain.basis == BASIS


def test_a_fallback_says_to_whom_why_and_what_it_was() -> None:
    chain = ChainSource([Flaky(), fixed()])
    for reading in (chain.now(AT), *chain.forecast(AT, 2)):
        assert reading.kind == "fallback"
        assert reading.provider == "fixed"
        assert reading.g_per_kwh == 100.0
        assert "fell back to fixed because flaky failed: the line is cut" in reading.note
    assert "itself estimated" in chain.now(AT).note


def test_a_failed_source_is_left_alone_for_a_while_and_then_asked_again() -> None:
    clock, flaky = Clock(), Flaky()
    chain = ChainSource([flaky, fixed()], retry_after_s=60.0, monotonic=clock)
    chain.now(AT)
    clock.s = 59.0
    assert "failed 59 s ago and is left alone" in chain.now(AT).note
    assert flaky.asked == 1
    clock.s, flaky.fail = 60.0, False
    assert chain.now(AT).g_per_kwh == 7.0


def test_all_failing_lists_every_reason() -> None:
    chain = ChainSource([Flaky(), Flaky()])
    with pytest.raises(IntensityError, match=r"the line is cut.*the line is cut"):
        chain.now(AT)
    # The last resort is asked each time, the first is resting.
    with pytest.raises(IntensityError, match=r"left alone.*flaky failed"):
        chain.now(AT)


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(IntensityError, match="at least one"):
        ChainSource([])


@pytest.mark.parametrize(
    "other",
    [
        make_basis("average", "life", "consumption"),
        make_basis("average", "direct", "production"),
        make_basis("average", "direct", "unstated"),
        make_basis("marginal", "direct", "consumption"),
    ],
)
def test_bases_never_meet_in_one_chain(other: Basis) -> None:
    with pytest.raises(BasisError, match="would mix carbon intensities"):
        ChainSource([fixed(), fixed(other)])


def test_a_source_that_changes_its_basis_is_caught() -> None:
    flaky = Flaky(fail=False)
    chain = ChainSource([flaky])
    flaky.basis = make_basis("average", "life")
    with pytest.raises(BasisError):
        chain.now(AT)


def test_one_basis_of_many() -> None:
    assert require_one_basis([BASIS, BASIS], what="A sum") == BASIS
    with pytest.raises(BasisError, match="A sum would mix"):
        require_one_basis([BASIS, make_basis()], what="A sum")


def test_a_senseless_question_puts_no_source_to_rest() -> None:
    flaky = Flaky(fail=False)
    chain = ChainSource([flaky, fixed()])
    with pytest.raises(UnitError, match="1 or more"):
        chain.forecast(AT, 0)
    with pytest.raises(UnitError, match="time zone"):
        chain.now(AT.replace(tzinfo=None))
    assert chain.forecast(AT, 1)[0].g_per_kwh == 7.0


@pytest.mark.parametrize("change", [{"age_s": -1.0}, {"uncertainty_g_per_kwh": float("nan")}])
def test_a_reading_refuses_senseless_provenance(change: dict[str, float]) -> None:
    with pytest.raises(UnitError, match="finite and not negative"):
        replace(fixed().now(AT), **change)
