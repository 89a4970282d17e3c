"""Ledger entries: what one line holds, how it is read back, and how entries add up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from carbon.errors import LedgerError, UnitError
from carbon.intensity.protocol import Basis, IntensityReading, Kind
from carbon.meter import EnergyBasis
from carbon.units import CarbonIntensity, Energy

VERSION = 1
By = Literal["stage", "case", "all"]
ALL = "all"
NO_CASE = "(no case)"
OPTIONAL = ("policy", "unit", "session")


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """Energy of one stretch of work, the grid at that time, and what it emitted.

    Attributes:
        time: when the work ended (aware).
        stage: what was done, for example ``train`` or ``transfer:genomics->pathology``.
        case: the case it was done for; None for work that serves no single case.
        energy_kwh: kWh; None where unmeasured.
        energy_basis: measured or modelled.
        energy_source: counter or model.
        energy_reason: what was left out or modelled, and why.
        seconds: how long it took; None where it was declared, not timed.
        intensity: the grid, with its provenance; None where no source could say.
        g_co2e: gross emissions, gCO2e; None where energy or intensity is.
        note: anything else worth knowing.
        policy: the policy that decided on this work; None where none did or none is known.
        unit: the hospital unit that it was done for.
        session: the review session that it belongs to.
    """

    time: datetime
    stage: str
    case: str | None
    energy_kwh: float | None
    energy_basis: EnergyBasis
    energy_source: str
    energy_reason: str | None = None
    seconds: float | None = None
    intensity: IntensityReading | None
    g_co2e: float | None
    note: str = ""
    policy: str | None = None
    unit: str | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        if not self.stage or self.case == "":
            raise LedgerError("A ledger entry needs a stage, and a case that is None or not empty.")
        if "" in (self.policy, self.unit, self.session):
            raise LedgerError(
                f"Ledger entry {self.stage!r}: policy, unit and session are None or not empty."
            )
        if self.time.utcoffset() is None:
            raise LedgerError(f"Ledger entry {self.stage!r}: its time lacks a time zone.")
        if self.energy_kwh is None and not self.energy_reason:
            raise LedgerError(f"Ledger entry {self.stage!r}: energy is unmeasured; say why.")

    @property
    def intensity_basis(self) -> Basis | None:
        """Basis of the intensity; None where there is none."""
        return None if self.intensity is None else self.intensity.basis

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in the file.

        Policy, unit and session are left out where they are None, so that lines without them
        are the same as before there were any.
        """
        optional = {name: getattr(self, name) for name in OPTIONAL}
        return {
            "v": VERSION,
            "time": self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "stage": self.stage,
            "case": self.case,
            "energy_kwh": self.energy_kwh,
            "energy_basis": self.energy_basis,
            "energy_source": self.energy_source,
            "energy_reason": self.energy_reason,
            "seconds": self.seconds,
            "intensity": None if self.intensity is None else self.intensity.as_dict(),
            "g_co2e": self.g_co2e,
            "note": self.note,
            **{name: value for name, value in optional.items() if value is not None},
        }


def emissions_g_co2e(energy_kwh: float | None, intensity: IntensityReading | None) -> float | None:
    """Gross emissions, gCO2e; None where either factor is unknown.

    Raises:
        UnitError: if the energy is negative or not finite.
    """
    if energy_kwh is None:
        return None
    energy = Energy.from_kwh(energy_kwh)
    if intensity is None:
        return None
    return CarbonIntensity(g_per_kwh=intensity.g_per_kwh).of(energy).g_co2e


NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _IntensityLine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    g_per_kwh: NotNegative
    zone: str
    time: AwareDatetime
    basis: Basis
    provider: str
    kind: Kind
    age_s: NotNegative
    uncertainty_g_per_kwh: NotNegative | None
    note: str


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    v: Literal[1]
    time: AwareDatetime
    stage: str = Field(min_length=1)
    case: str | None = Field(min_length=1)
    energy_kwh: NotNegative | None
    energy_basis: EnergyBasis
    energy_source: str
    energy_reason: str | None
    seconds: NotNegative | None
    intensity: _IntensityLine | None
    g_co2e: NotNegative | None
    note: str
    policy: str | None = Field(default=None, min_length=1)
    unit: str | None = Field(default=None, min_length=1)
    session: str | None = Field(default=None, min_length=1)

    def entry(self) -> LedgerEntry:
        """The entry that this line holds."""
        fields = {name: getattr(self, name) for name in _Line.model_fields if name != "v"}
        if self.intensity is not None:
            fields["intensity"] = IntensityReading(**self.intensity.model_dump())
        return LedgerEntry(**fields)


def parse_line(path: Path, number: int, raw: bytes) -> LedgerEntry:
    """Read one line of a ledger.

    Args:
        path: the ledger, for the message.
        number: line number from 1, for the message; 0 for a line that is not in the file yet.
        raw: the line.

    Raises:
        LedgerError: if the line is not an entry; says which and what is wrong.
    """
    try:
        return _Line.model_validate_json(raw).entry()
    except (ValidationError, UnitError, LedgerError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))} {first['msg']}" if first else str(error)
        if number == 0:
            raise LedgerError(f"Not fit for the ledger {path}: {what.strip()}.") from error
        raise LedgerError(
            f"{path}, line {number} is damaged ({what.strip()}). Entries are never guessed: "
            "restore the line from a copy, or move it out of the file by hand."
        ) from error


@dataclass(frozen=True, kw_only=True)
class LedgerTotal:
    """Sum over the entries of one stage or case, on one intensity basis.

    Attributes:
        key: the stage, the case, or ``all``.
        intensity_basis: basis of every intensity in the sum; None for entries without one.
        entries: how many entries.
        measured_kwh: measured energy, kWh.
        modelled_kwh: modelled energy, kWh.
        g_co2e: gross emissions of the entries that have a figure, gCO2e.
        unmeasured: entries without an energy figure; they are not in the sums.
        without_g_co2e: entries without an emissions figure; they are not in ``g_co2e``.
    """

    key: str
    intensity_basis: Basis | None
    entries: int = 0
    measured_kwh: float = 0.0
    modelled_kwh: float = 0.0
    g_co2e: float = 0.0
    unmeasured: int = 0
    without_g_co2e: int = 0

    @property
    def energy_kwh(self) -> float:
        """Measured and modelled energy together, kWh."""
        return self.measured_kwh + self.modelled_kwh

    def plus(self, entry: LedgerEntry) -> LedgerTotal:
        """The sum with one more entry."""
        kwh = entry.energy_kwh or 0.0
        measured = entry.energy_basis == "measured"
        return replace(
            self,
            entries=self.entries + 1,
            measured_kwh=self.measured_kwh + (kwh if measured else 0.0),
            modelled_kwh=self.modelled_kwh + (0.0 if measured else kwh),
            g_co2e=self.g_co2e + (entry.g_co2e or 0.0),
            unmeasured=self.unmeasured + (entry.energy_kwh is None),
            without_g_co2e=self.without_g_co2e + (entry.g_co2e is None),
        )

    def merged(self, other: LedgerTotal) -> LedgerTotal:
        """Both sums together, under this one's key; they must share their basis."""
        return replace(
            self,
            entries=self.entries + other.entries,
            measured_kwh=self.measured_kwh + other.measured_kwh,
            modelled_kwh=self.modelled_kwh + other.modelled_kwh,
            g_co2e=self.g_co2e + other.g_co2e,
            unmeasured=self.unmeasured + other.unmeasured,
            without_g_co2e=self.without_g_co2e + other.without_g_co2e,
        )


def merge(parts: Iterable[LedgerTotal]) -> tuple[LedgerTotal, ...]:
    """Sums of several stretches as one; sorted by key and basis."""
    sums: dict[tuple[str, Basis | None], LedgerTotal] = {}
    for part in parts:
        slot = (part.key, part.intensity_basis)
        sums[slot] = sums[slot].merged(part) if slot in sums else part
    return tuple(sums[slot] for slot in sorted(sums, key=lambda s: (s[0], s[1] or "")))


def total(entries: Iterable[LedgerEntry], by: By = "stage") -> tuple[LedgerTotal, ...]:
    """Add up entries; one row for each key and intensity basis, since bases do not add up.

    Raises:
        LedgerError: if ``by`` is not a known grouping.
    """
    if by not in get_args(By):
        raise LedgerError(f"Cannot total by {by!r}. Allowed: {', '.join(get_args(By))}.")
    sums: dict[tuple[str, Basis | None], LedgerTotal] = {}
    for entry in entries:
        key = _key(entry, by)
        slot = (key, entry.intensity_basis)
        found = sums.get(slot, LedgerTotal(key=key, intensity_basis=entry.intensity_basis))
        sums[slot] = found.plus(entry)
    return tuple(sums[slot] for slot in sorted(sums, key=lambda s: (s[0], s[1] or "")))


def _key(entry: LedgerEntry, by: By) -> str:
    if by == "all":
        return ALL
    if by == "stage":
        return entry.stage
    return entry.case if entry.case is not None else NO_CASE
