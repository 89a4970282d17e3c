"""Great Britain's grid from the National Energy System Operator (NESO); free, no key.

Data: National Energy System Operator, Carbon Intensity API, CC BY 4.0,
https://carbonintensity.org.uk. Figures are average, direct (generation only) and follow
consumption (interconnectors and losses included). Half-hours are averaged to hours in forecasts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from carbon.errors import IntensityError
from carbon.intensity.cache import ResponseCache
from carbon.intensity.http import HttpClient, TextClient
from carbon.intensity.kept import Fetched, Freshness, KeptAnswers
from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    as_utc,
    floor_hour,
    make_basis,
    require_horizon,
)
from carbon.intensity.trace import HOUR

BASE_URL = "https://api.carbonintensity.org.uk"
PROVIDER = "neso"
ZONE = "GB"
HALF_HOUR = timedelta(minutes=30)
LONGEST_FORECAST_H = 48


class _Figures(BaseModel):
    # A provider may add fields on any day: unknown ones are none of our business.
    model_config = ConfigDict(extra="ignore")

    forecast: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    actual: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class _Period(BaseModel):
    model_config = ConfigDict(extra="ignore")

    start: AwareDatetime = Field(alias="from")
    end: AwareDatetime = Field(alias="to")
    intensity: _Figures


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: list[_Period] = []
    error: dict[str, object] | None = None


NesoFreshness = Freshness
_Fetched = Fetched[tuple[_Period, ...]]


class NesoSource:
    """The NESO Carbon Intensity API as a source.

    Args:
        client: how to fetch.
        cache: where answers are kept; in memory where not given.
        base_url: another address that speaks the same shape.
        freshness: how old an answer may be.
        clock: the present (aware), for the age of cached answers.
    """

    def __init__(
        self,
        *,
        client: TextClient | None = None,
        cache: ResponseCache | None = None,
        base_url: str = BASE_URL,
        freshness: NesoFreshness | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client: TextClient = client if client is not None else HttpClient()
        self._kept = KeptAnswers(cache=cache, freshness=freshness, clock=clock)
        self._base_url = base_url.rstrip("/")

    @property
    def name(self) -> str:
        """``neso``."""
        return PROVIDER

    @property
    def basis(self) -> Basis:
        """Average, direct, consumption."""
        return make_basis("average", "direct", "consumption")

    def now(self, at: datetime) -> IntensityReading:
        """The half-hour of ``at``: what was measured, else NESO's own forecast of it.

        Raises:
            IntensityError: if NESO cannot be reached, or has nothing near that time.
        """
        moment = as_utc(at)
        fetched = self._fetch("/intensity")
        period = _containing(fetched.value, moment)
        if period is None and not fetched.stale_note:
            fetched = self._around(moment) or fetched
            period = _containing(fetched.value, moment)
        if period is None:
            period = self._latest(fetched.value, moment)
        return self._reading(period, moment, fetched.stale_note)

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """NESO's national forecast, hour by hour; at most 48 hours, often fewer.

        The uncertainty is the root mean square error of NESO's last forecasts of the past 24
        hours against what was then measured; it understates the error of long leads.

        Raises:
            IntensityError: if NESO cannot be reached or has no forecast.
        """
        require_horizon(hours)
        moment = as_utc(at)
        span = "fw24h" if hours < 24 else "fw48h"
        fetched = self._fetch(f"/intensity/{_stamp(_half_hour(moment))}/{span}")
        spread, spread_note = self._spread(moment)
        readings = []
        for lead in range(1, min(hours, LONGEST_FORECAST_H) + 1):
            hour = floor_hour(moment) + lead * HOUR
            value = _hour_mean(fetched.value, hour)
            if value is None:
                # Later hours after a hole would have the wrong lead for who reads by position.
                break
            readings.append(
                IntensityReading(
                    g_per_kwh=value,
                    zone=ZONE,
                    time=hour,
                    basis=self.basis,
                    provider=PROVIDER,
                    kind="fallback" if fetched.stale_note else "forecast",
                    age_s=0.0,
                    uncertainty_g_per_kwh=spread,
                    note="; ".join(filter(None, [spread_note, fetched.stale_note])),
                )
            )
        if not readings:
            raise IntensityError(f"NESO has no forecast after {_stamp(moment)}.")
        return tuple(readings)

    def _around(self, moment: datetime) -> _Fetched | None:
        """That half-hour by name, when asked about another time than NESO's present."""
        start = _half_hour(moment)
        try:
            ranged = self._fetch(f"/intensity/{_stamp(start)}/{_stamp(start + HALF_HOUR)}")
        except IntensityError:
            # What NESO says of its present may still serve, if it is not too old: see _latest.
            return None
        return ranged if ranged.value else None

    def _spread(self, moment: datetime) -> tuple[float | None, str]:
        try:
            past = self._fetch(f"/intensity/{_stamp(_half_hour(moment))}/pt24h")
        except IntensityError as error:
            return None, f"uncertainty unknown: {error}"
        errors = [
            p.intensity.actual - p.intensity.forecast
            for p in past.value
            if p.start < moment
            and p.intensity.actual is not None
            and p.intensity.forecast is not None
        ]
        if not errors:
            return None, "uncertainty unknown: no measured half-hour in the past day"
        rms = math.sqrt(math.fsum(e * e for e in errors) / len(errors))
        return rms, f"uncertainty from {len(errors)} half-hours of the past day"

    def _latest(self, periods: Sequence[_Period], moment: datetime) -> _Period:
        started = [p for p in periods if p.start <= moment]
        latest = max(started, key=lambda p: p.start, default=None)
        if latest is None or (moment - latest.end).total_seconds() > self._kept.freshness.latest_s:
            raise IntensityError(f"NESO has no figure for {_stamp(moment)} or shortly before it.")
        return latest

    def _reading(self, period: _Period, moment: datetime, stale_note: str) -> IntensityReading:
        figures = period.intensity
        value = figures.actual if figures.actual is not None else figures.forecast
        if value is None:
            raise IntensityError(
                f"NESO gives neither an actual nor a forecast figure for {_stamp(period.start)}."
            )
        notes = [] if figures.actual is not None else ["not measured yet: NESO's own forecast"]
        if not period.start <= moment < period.end:
            notes.append("the latest period that NESO has published")
        reading = IntensityReading(
            g_per_kwh=value,
            zone=ZONE,
            time=period.start.astimezone(UTC),
            basis=self.basis,
            provider=PROVIDER,
            kind="measured" if figures.actual is not None else "forecast",
            age_s=max(0.0, (moment - period.start).total_seconds()),
            note="; ".join(notes),
        )
        return reading.with_note(stale_note, kind="fallback") if stale_note else reading

    def _fetch(self, path: str) -> _Fetched:
        return self._kept.fetch(self._base_url + path, self._get, _parse)

    def _get(self, url: str) -> str:
        return self._client.get_text(url, {"Accept": "application/json"})


def _parse(url: str, body: str) -> tuple[_Period, ...]:
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise IntensityError(f"{url}: not NESO's shape at {where}: {first['msg']}") from error
    if answer.error is not None:
        raise IntensityError(f"{url}: NESO says {answer.error.get('message', answer.error)}")
    return tuple(answer.data)


def _containing(periods: Sequence[_Period], moment: datetime) -> _Period | None:
    return next((p for p in periods if p.start <= moment < p.end), None)


def _hour_mean(periods: Sequence[_Period], hour: datetime) -> float | None:
    inside = (p.intensity.forecast for p in periods if hour <= p.start < hour + HOUR)
    values = [value for value in inside if value is not None]
    return math.fsum(values) / len(values) if values else None


def _half_hour(moment: datetime) -> datetime:
    return moment.replace(minute=moment.minute // 30 * 30, second=0, microsecond=0)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
