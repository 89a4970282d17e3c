"""The carbon account and the limits: what is asked and what goes out; units in the names."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api.schemas import Body, Out
from api.when import When
from carbon.declared import Declared, parse_hardware, parse_heat

By = Literal["stage", "case", "policy", "unit", "session", "all"]


class AccountQuery(Body):
    """What an account is asked for with."""

    by: By = Field(default="stage", description="One row for each.", examples=["policy"])
    heat: str | None = Field(
        default=None,
        max_length=100,
        description="Recovered heat r:u:h: recovered share (0 to 1; more is refused), used share "
        "(0 to 1), gCO2e per kWh of displaced heat; r:u takes a gas boiler's 203.",
        examples=["0.6:0.9:203"],
    )
    heat_source: str | None = Field(
        default=None,
        max_length=300,
        description="Where h comes from; needed where it is not the boiler's.",
        examples=["district heating, operator's report of 2023"],
    )
    heat_scope: Literal["direct", "life"] = Field(
        default="direct", description="Whether h counts combustion or the life cycle."
    )
    hardware: str | None = Field(
        default=None,
        max_length=100,
        description="Embodied carbon KG:HOURS or KG:HOURS:RESERVED:TOTAL.",
        examples=["1300:35064:8:64"],
    )
    hardware_source: str | None = Field(
        default=None,
        max_length=300,
        description="Where the kilograms come from.",
        examples=["the maker's product carbon footprint"],
    )
    since: When | None = Field(default=None, description="With a time zone.")
    until: When | None = Field(default=None, description="With a time zone.")
    year: int | None = Field(
        default=None, ge=1900, le=2200, description="Year of the server's recorded trace."
    )

    def declared(self) -> Declared:
        """The heat recovery and the hardware that it declares.

        Raises:
            HeatError: if the heat makes no sense.
            AccountError: if the hardware makes none.
        """
        heat, hardware = self.heat, self.hardware
        return Declared(
            heat=(
                None
                if heat is None
                else parse_heat(heat, source=self.heat_source, scope=self.heat_scope)
            ),
            hardware=(
                None if hardware is None else parse_hardware(hardware, source=self.hardware_source)
            ),
        )


class FigureView(Out):
    """A figure; booked sums carry no interval, ``n`` says how many entries were summed."""

    value: float | None
    ci95: tuple[float, float] | None
    n: int


class AccountRowView(Out):
    """One stage, case, policy, unit or session, on one intensity basis."""

    key: str
    intensity_basis: str | None
    entries: int
    cases: int
    energy_kwh: FigureView
    measured_kwh: float
    modelled_kwh: float
    gross_g_co2e: FigureView = Field(description="Energy x intensity; nothing is subtracted.")
    mean_g_co2e_per_kwh: FigureView
    avoided_g_co2e: FigureView = Field(description="By recovered heat: E x r x u x h.")
    net_g_co2e: FigureView = Field(description="Gross minus avoided; null without an avoided one.")
    heat_remark: str
    embodied_g_co2e: FigureView
    operational_g_co2e_per_case: FigureView
    sci_g_co2e_per_case: FigureView = Field(description="((E x I) + M) / cases; takes no credit.")
    sci_remark: str
    unmeasured: int
    without_g_co2e: int
    untimed: int
    intensity_kinds: dict[str, int]


class HeatView(Out):
    """The declared heat recovery."""

    recovered_fraction: float
    used_fraction: float
    displaced_g_co2e_per_kwh_heat: float
    source: str
    scope: Literal["direct", "life"]
    break_even_g_co2e_per_kwh: float


class AccountView(Out):
    """The account of everything that this server reviewed."""

    format: int
    ledger: str
    by: By
    from_: datetime | None = Field(alias="from")
    to: datetime | None
    zones: list[str] = Field(
        description="Grids that the intensities are from; synthetic is a made-up one.",
        examples=[["GB"]],
    )
    rows: list[AccountRowView]
    totals: list[AccountRowView] = Field(description="One a basis: bases never add up.")
    heat: HeatView | None
    hardware: dict[str, Any] | None
    hours_worked_below_break_even: list[dict[str, Any]]
    carbon_negative_deployment: dict[str, Any] | None = Field(
        description="What must hold for net < 0, over a recorded year; null without heat or trace."
    )
    budgets: list[dict[str, Any]]
    warnings: list[str]


class SpentBy(Out):
    """What had been spent by the end of an hour."""

    until: datetime = Field(description="End of the hour, or now.")
    spent_g_co2e: float


class DayBudgetView(Out):
    """The day's carbon that policies plan with, midnight to midnight UTC."""

    starts: datetime
    ends: datetime
    g_co2e_per_day: float
    spent_g_co2e: FigureView = Field(description="n: entries that were summed.")
    left_g_co2e: float = Field(description="Negative when overspent.")
    left_fraction: float = Field(description="Of the day's budget; what policies see.")
    cases_per_day: int = Field(description="Cases that it is meant for.")
    unknown_entries: int = Field(description="Entries of unknown emissions: not in the sum.")
    course: list[SpentBy] = Field(description="Hour by hour from midnight until now.")


class LimitView(Out):
    """Where one limit stands."""

    period: Literal["session", "day", "month"]
    key: str = Field(examples=["2026-11-23"])
    starts: datetime | None
    ends: datetime | None = Field(description="When spend starts at 0 again; null for a session.")
    soft_g_co2e: float
    hard_g_co2e: float
    spent_g_co2e: FigureView
    left_g_co2e: FigureView
    unknown_entries: int = Field(description="Entries of unknown emissions: not in the sum.")
    level: Literal["within", "soft", "hard"]
    action: Literal["proceed", "warn", "defer", "refuse"]
    meaning: str


class LimitsView(Out):
    """The operator's limits now."""

    timezone: str
    session: str | None
    limits: list[LimitView]
