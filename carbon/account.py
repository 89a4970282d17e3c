"""The account: gross emissions from the ledger, SCI per case, and recovered heat apart from both.

Every entry is counted once in exactly one row. Rows on different intensity bases stay apart, since
their emissions do not add up. Net is gross minus avoided, over the same entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, get_args

from carbon.embodied import DeclaredHardware
from carbon.entries import ALL, LedgerEntry
from carbon.errors import AccountError
from carbon.heat import HeatRecovery
from carbon.intensity.protocol import Basis, Kind, as_utc, floor_hour
from carbon.sci import sci_g_co2e

HOUR = timedelta(hours=1)
LONGEST_S = 366 * 86_400.0
"""Work that claims to have taken longer is shown over its last year."""
AccountBy = Literal["stage", "case", "policy", "unit", "session", "all"]


@dataclass(frozen=True, kw_only=True)
class AccountRow:
    """The account of one stage, case, policy, unit or session, on one intensity basis.

    Attributes:
        key: which one; ``(no case)`` and the like for entries that name none.
        intensity_basis: basis of every intensity in it; None for entries without one.
        entries: how many entries.
        cases: how many different cases they name.
        measured_kwh: measured electricity, kWh.
        modelled_kwh: modelled electricity, kWh.
        counted_kwh: the part of it that has emissions, kWh.
        g_co2e: sum of the gross emissions that are known, gCO2e.
        avoided_g_co2e: by recovered heat, over ``counted_kwh``; None where none was declared, or
            where ``heat_remark`` says that it may not be set against this basis.
        heat_remark: whether heat and electricity count the same; empty if they do.
        embodied_g_co2e: M of the timed entries; None where no hardware was declared.
        unmeasured: entries without an energy figure.
        without_g_co2e: entries without an emissions figure.
        untimed: entries without a run time, whose share of M is therefore missing.
        intensity_kinds: entries by how their intensity came about: measured, forecast, estimated,
            fallback.
    """

    key: str
    intensity_basis: Basis | None
    entries: int
    cases: int
    measured_kwh: float
    modelled_kwh: float
    counted_kwh: float
    g_co2e: float
    avoided_g_co2e: float | None
    heat_remark: str
    embodied_g_co2e: float | None
    unmeasured: int
    without_g_co2e: int
    untimed: int
    intensity_kinds: Mapping[Kind, int]

    @property
    def energy_kwh(self) -> float:
        """Measured and modelled electricity together, kWh."""
        return self.measured_kwh + self.modelled_kwh

    @property
    def gross_g_co2e(self) -> float | None:
        """Gross emissions, gCO2e; None where no entry has a figure, which is not 0."""
        return self.g_co2e if self.entries > self.without_g_co2e else None

    @property
    def known_kwh(self) -> float | None:
        """Energy, kWh; None where no entry has a figure, which is not 0."""
        return self.energy_kwh if self.entries > self.unmeasured else None

    @property
    def net_g_co2e(self) -> float | None:
        """Gross minus avoided, gCO2e; None where there is no avoided figure."""
        return None if self.avoided_g_co2e is None else self.g_co2e - self.avoided_g_co2e

    @property
    def mean_g_per_kwh(self) -> float | None:
        """Energy-weighted mean intensity, gCO2e/kWh; None without energy."""
        return self.g_co2e / self.counted_kwh if self.counted_kwh > 0 else None

    @property
    def operational_g_co2e_per_case(self) -> float | None:
        """E x I per case, gCO2e; None where no entry names a case."""
        gross = self.gross_g_co2e
        return gross / self.cases if gross is not None and self.cases else None

    @property
    def sci_g_co2e_per_case(self) -> float | None:
        """SCI with one case as the functional unit, gCO2e; see ``sci_remark``."""
        if self.embodied_g_co2e is None or self.gross_g_co2e is None or not self.cases:
            return None
        return sci_g_co2e(
            operational_g_co2e=self.g_co2e,
            embodied_g_co2e=self.embodied_g_co2e,
            units=float(self.cases),
        )

    @property
    def sci_remark(self) -> str:
        """Why there is no SCI, or what it leaves out; empty where it is whole."""
        if not self.cases:
            return "no entry names a case, so there is no functional unit"
        if self.gross_g_co2e is None:
            return "no entry has emissions, so E x I is unknown"
        if self.embodied_g_co2e is None:
            return "no hardware was declared, so M is unknown"
        left_out = []
        if self.untimed:
            left_out.append(f"M of {self.untimed} entries without a run time")
        if self.without_g_co2e:
            left_out.append(f"E x I of {self.without_g_co2e} entries without emissions")
        return f"a lower bound: leaves out {' and '.join(left_out)}" if left_out else ""


@dataclass(frozen=True, kw_only=True)
class WorkHour:
    """What one stage used in one clock hour; work that took longer is spread over its hours.

    Attributes:
        hour: its start, UTC.
        stage: the stage.
        intensity_basis: basis of the emissions.
        energy_kwh: kWh.
        counted_kwh: the part of it that has emissions, kWh.
        g_co2e: gross, gCO2e.
    """

    hour: datetime
    stage: str
    intensity_basis: Basis | None
    energy_kwh: float
    counted_kwh: float
    g_co2e: float


@dataclass(frozen=True, kw_only=True)
class HoursBelow:
    """In how many of the hours in which work ran the grid was below break-even.

    Attributes:
        below: hours below.
        hours: hours in which work with emissions ran.
        kwh_below: what was used in the hours below, kWh.
        kwh: what was used in all of them, kWh.
    """

    below: int
    hours: int
    kwh_below: float
    kwh: float


@dataclass(frozen=True, kw_only=True)
class Account:
    """A ledger's account.

    Attributes:
        by: what the rows stand for.
        rows: sorted by key and basis.
        totals: one row a basis, over everything.
        hours: what ran when, by time and stage.
        heat: the declared heat recovery.
        hardware: the declared hardware.
        first: when the earliest entry ended, UTC; None without entries.
        last: when the latest one did.
        zones: grids that its intensities are from, sorted; ``synthetic`` is a made-up one.
    """

    by: AccountBy
    rows: tuple[AccountRow, ...]
    totals: tuple[AccountRow, ...]
    hours: tuple[WorkHour, ...]
    heat: HeatRecovery | None
    hardware: DeclaredHardware | None
    first: datetime | None = None
    last: datetime | None = None
    zones: tuple[str, ...] = ()

    def kwh_by_hour_of_day(self) -> tuple[float, ...]:
        """Energy in each of the 24 hours of the day, UTC, kWh: when the work tends to run."""
        profile = [0.0] * 24
        for cell in self.hours:
            profile[cell.hour.hour] += cell.energy_kwh
        return tuple(profile)

    def hours_below(self, basis: Basis | None) -> HoursBelow | None:
        """The hours worked, by their energy-weighted intensity; None without heat that fits.

        Args:
            basis: of the work that is looked at.
        """
        if self.heat is None or not self.heat.fits(basis):
            return None
        sums: dict[datetime, list[float]] = {}
        for cell in self.hours:
            if cell.intensity_basis == basis and cell.counted_kwh > 0:
                found = sums.setdefault(cell.hour, [0.0, 0.0])
                found[0] += cell.counted_kwh
                found[1] += cell.g_co2e
        limit = self.heat.break_even_g_per_kwh
        below = [kwh for kwh, g in sums.values() if g < limit * kwh]
        return HoursBelow(
            below=len(below),
            hours=len(sums),
            kwh_below=sum(below, 0.0),
            kwh=sum((kwh for kwh, _ in sums.values()), 0.0),
        )


@dataclass(kw_only=True)
class _Sum:
    entries: int = 0
    cases: set[str] = field(default_factory=set)
    measured_kwh: float = 0.0
    modelled_kwh: float = 0.0
    counted_kwh: float = 0.0
    g_co2e: float = 0.0
    embodied_g_co2e: float = 0.0
    unmeasured: int = 0
    without_g_co2e: int = 0
    untimed: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)

    def add(self, entry: LedgerEntry, hardware: DeclaredHardware | None) -> None:
        self.entries += 1
        if entry.case is not None:
            self.cases.add(entry.case)
        kwh = entry.energy_kwh or 0.0
        if entry.energy_basis == "measured":
            self.measured_kwh += kwh
        else:
            self.modelled_kwh += kwh
        self.unmeasured += entry.energy_kwh is None
        if entry.intensity is not None:
            self.kinds[entry.intensity.kind] += 1
        if entry.g_co2e is None:
            self.without_g_co2e += 1
        else:
            self.g_co2e += entry.g_co2e
            self.counted_kwh += kwh
        if entry.seconds is None:
            self.untimed += 1
        elif hardware is not None:
            self.embodied_g_co2e += hardware.embodied_g_co2e(entry.seconds)

    def row(self, key: str, basis: Basis | None, account: _Draft) -> AccountRow:
        heat, hardware = account.heat, account.hardware
        avoided = None
        if heat is not None and heat.fits(basis) and self.entries > self.without_g_co2e:
            avoided = heat.avoided_g_co2e(self.counted_kwh)
        return AccountRow(
            key=key,
            intensity_basis=basis,
            entries=self.entries,
            cases=len(self.cases),
            measured_kwh=self.measured_kwh,
            modelled_kwh=self.modelled_kwh,
            counted_kwh=self.counted_kwh,
            g_co2e=self.g_co2e,
            avoided_g_co2e=avoided,
            heat_remark="" if heat is None else heat.remark(basis),
            embodied_g_co2e=None if hardware is None else self.embodied_g_co2e,
            unmeasured=self.unmeasured,
            without_g_co2e=self.without_g_co2e,
            untimed=self.untimed,
            intensity_kinds=dict(sorted(self.kinds.items())),
        )


_Slot = tuple[str, Basis | None]


@dataclass(kw_only=True)
class _Draft:
    heat: HeatRecovery | None
    hardware: DeclaredHardware | None
    sums: dict[_Slot, _Sum] = field(default_factory=dict)
    everything: dict[_Slot, _Sum] = field(default_factory=dict)
    hours: dict[tuple[datetime, str, Basis | None], list[float]] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None
    zones: set[str] = field(default_factory=set)

    def add(self, entry: LedgerEntry, key: str) -> None:
        basis = entry.intensity_basis
        at = as_utc(entry.time)
        self.first = at if self.first is None else min(self.first, at)
        self.last = at if self.last is None else max(self.last, at)
        if entry.intensity is not None:
            self.zones.add(entry.intensity.zone)
        for sums, slot in ((self.sums, (key, basis)), (self.everything, (ALL, basis))):
            if slot not in sums:
                sums[slot] = _Sum()
            sums[slot].add(entry, self.hardware)
        kwh, g_co2e = entry.energy_kwh or 0.0, entry.g_co2e or 0.0
        counted = 0.0 if entry.g_co2e is None else kwh
        for hour, share in _hours_of(entry):
            cell = self.hours.setdefault((hour, entry.stage, basis), [0.0, 0.0, 0.0])
            cell[0] += kwh * share
            cell[1] += counted * share
            cell[2] += g_co2e * share

    def rows(self, sums: dict[_Slot, _Sum]) -> tuple[AccountRow, ...]:
        ordered = sorted(sums, key=lambda slot: (slot[0], slot[1] or ""))
        return tuple(sums[slot].row(slot[0], slot[1], self) for slot in ordered)


def draw_up(
    entries: Iterable[LedgerEntry],
    by: AccountBy = "stage",
    *,
    heat: HeatRecovery | None = None,
    hardware: DeclaredHardware | None = None,
) -> Account:
    """Draw up the account of a ledger in one pass.

    Args:
        entries: of the ledger; only sums are held, and the names of cases.
        by: one row for each stage, case, policy, hospital unit or session, or one for all.
        heat: declared heat recovery; without it there is no avoided figure and no net.
        hardware: declared hardware; without it there is no SCI.

    Raises:
        AccountError: if ``by`` is not a known grouping, or a run time exceeds the hardware's life.
    """
    if by not in get_args(AccountBy):
        raise AccountError(f"Cannot account by {by!r}. Allowed: {', '.join(get_args(AccountBy))}.")
    draft = _Draft(heat=heat, hardware=hardware)
    for entry in entries:
        draft.add(entry, _key(entry, by))
    cells = sorted(draft.hours.items(), key=lambda cell: (cell[0][0], cell[0][1], cell[0][2] or ""))
    return Account(
        by=by,
        rows=draft.rows(draft.sums),
        totals=draft.rows(draft.everything),
        hours=tuple(
            WorkHour(
                hour=hour,
                stage=stage,
                intensity_basis=basis,
                energy_kwh=kwh,
                counted_kwh=counted,
                g_co2e=g,
            )
            for (hour, stage, basis), (kwh, counted, g) in cells
        ),
        heat=heat,
        hardware=hardware,
        first=draft.first,
        last=draft.last,
        zones=tuple(sorted(draft.zones)),
    )


def _hours_of(entry: LedgerEntry) -> Iterator[tuple[datetime, float]]:
    """The clock hours that the work fell into, with its share in each; its end where untimed."""
    end = as_utc(entry.time)
    seconds = min(entry.seconds or 0.0, LONGEST_S)
    start = end - timedelta(seconds=seconds)
    if seconds <= 0 or floor_hour(start) == floor_hour(end):
        yield floor_hour(end), 1.0
        return
    length = end - start
    at = start
    while at < end:
        until = min(floor_hour(at) + HOUR, end)
        yield floor_hour(at), (until - at) / length
        at = until


def _key(entry: LedgerEntry, by: AccountBy) -> str:
    if by == "all":
        return ALL
    value: str | None = getattr(entry, by)
    return value if value is not None else f"(no {by})"
