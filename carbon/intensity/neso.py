"""Great Britain's grid from the National Energy System Operator (NESO); free, no key.

Data: National Energy System Operator, Carbon Intensity API, CC BY 4.0,
https://carbonintensity.org.uk. Figures are average, direct (generation only) and follow
consumption (interconnectors and losses included). Half-hours are averaged to hours in forecasts.
For regions and postcodes NESO publishes forecasts only, nothing measured: their readings are
forecasts, the one for the present as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from carbon.errors import IntensityError
from carbon.intensity.answers import hours_ahead
from carbon.intensity.cache import ResponseCache
from carbon.intensity.http import HttpClient, TextClient
from carbon.intensity.kept import Fetched, Freshness, KeptAnswers
from carbon.intensity.neso_answers import NATION, NATIONWIDE, NesoPlace, Period
from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    as_utc,
    make_basis,
    require_horizon,
)

BASE_URL = "https://api.carbonintensity.org.uk"
PROVIDER = "neso"
ZONE = NATION
HALF_HOUR = timedelta(minutes=30)
LONGEST_FORECAST_H = 48


NesoFreshness = Freshness
_Fetched = Fetched[tuple[Period, ...]]


class NesoSource:
    """The NESO Carbon Intensity API as a source.

    Args:
        place: a region or postcode; all of Great Britain where not given.
        client: how to fetch.
        cache: where answers are kept; in memory where not given.
        base_url: another address that speaks the same shape.
        freshness: how old an answer may be.
        clock: the present (aware), for the age of cached answers.
    """

    def __init__(
        self,
        *,
        place: NesoPlace = NATIONWIDE,
        client: TextClient | None = None,
        cache: ResponseCache | None = None,
        base_url: str = BASE_URL,
        freshness: NesoFreshness | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.place = place
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

        For a region or postcode it is always the forecast, since nothing is measured there.

        Raises:
            IntensityError: if NESO cannot be reached, or has nothing near that time.
        """
        moment = as_utc(at)
        fetched = self._fetch()
        period = _containing(fetched.value, moment)
        if period is None and not fetched.stale_note:
            fetched = self._around(moment) or fetched
            period = _containing(fetched.value, moment)
        if period is None:
            period = self._latest(fetched.value, moment)
        return self._reading(period, moment, fetched.stale_note)

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """NESO's forecast, hour by hour; at most 48 hours, often fewer.

        The uncertainty is the root mean square error of NESO's last forecasts of the past 24
        hours against what was then measured; it understates the error of long leads. For a
        region or postcode it is unknown.

        Raises:
            IntensityError: if NESO cannot be reached or has no forecast.
        """
        require_horizon(hours)
        moment = as_utc(at)
        span = "fw24h" if hours < 24 else "fw48h"
        fetched = self._fetch(f"{_stamp(_half_hour(moment))}/{span}")
        spread, spread_note = self._spread(moment)
        points = [(p.start, p.intensity.forecast) for p in fetched.value]
        means = hours_ahead(points, moment, min(hours, LONGEST_FORECAST_H), per_hour=2)
        if not means:
            raise IntensityError(f"NESO has no forecast after {_stamp(moment)}.")
        return tuple(
            IntensityReading(
                g_per_kwh=value,
                zone=self.place.zone,
                time=hour,
                basis=self.basis,
                provider=PROVIDER,
                kind="fallback" if fetched.stale_note else "forecast",
                age_s=0.0,
                uncertainty_g_per_kwh=spread,
                note="; ".join(filter(None, [spread_note, fetched.stale_note])),
            )
            for hour, value in means
        )

    def recent(self, at: datetime) -> tuple[IntensityReading, ...]:
        """What was measured in the 24 hours before ``at``; nothing for a region or postcode.

        Raises:
            IntensityError: if NESO does not say.
        """
        moment = as_utc(at)
        if not self.place.is_nation:
            return ()
        return tuple(
            self._reading(p, moment, "")
            for p in self._past_day(moment).value
            if p.intensity.actual is not None and p.end <= moment
        )

    def _past_day(self, moment: datetime) -> _Fetched:
        return self._fetch(f"{_stamp(_half_hour(moment))}/pt24h")

    def _around(self, moment: datetime) -> _Fetched | None:
        """That half-hour by name, when asked about another time than NESO's present."""
        start = _half_hour(moment)
        try:
            ranged = self._fetch(f"{_stamp(start)}/{_stamp(start + HALF_HOUR)}")
        except IntensityError:
            # What NESO says of its present may still serve, if it is not too old: see _latest.
            return None
        return ranged if ranged.value else None

    def _spread(self, moment: datetime) -> tuple[float | None, str]:
        if not self.place.is_nation:
            return None, "uncertainty unknown: NESO measures the nation only, no region"
        try:
            past = self._past_day(moment)
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

    def _latest(self, periods: Sequence[Period], moment: datetime) -> Period:
        started = [p for p in periods if p.start <= moment]
        latest = max(started, key=lambda p: p.start, default=None)
        if latest is None or (moment - latest.end).total_seconds() > self._kept.freshness.latest_s:
            raise IntensityError(f"NESO has no figure for {_stamp(moment)} or shortly before it.")
        return latest

    def _reading(self, period: Period, moment: datetime, stale_note: str) -> IntensityReading:
        figures = period.intensity
        value = figures.actual if figures.actual is not None else figures.forecast
        if value is None:
            raise IntensityError(
                f"NESO gives neither an actual nor a forecast figure for {_stamp(period.start)}."
            )
        notes = []
        if not self.place.is_nation:
            notes.append("NESO's own forecast: it measures the nation only, no region")
        elif figures.actual is None:
            notes.append("not measured yet: NESO's own forecast")
        if not period.start <= moment < period.end:
            notes.append("the latest period that NESO has published")
        reading = IntensityReading(
            g_per_kwh=value,
            zone=self.place.zone,
            time=period.start,
            basis=self.basis,
            provider=PROVIDER,
            kind="measured" if figures.actual is not None else "forecast",
            age_s=max(0.0, (moment - period.start).total_seconds()),
            note="; ".join(notes),
        )
        return reading.with_note(stale_note, kind="fallback") if stale_note else reading

    def _fetch(self, span: str = "") -> _Fetched:
        return self._kept.fetch(self._base_url + self.place.path(span), self._get, self.place.read)

    def _get(self, url: str) -> str:
        return self._client.get_text(url, {"Accept": "application/json"})


def _containing(periods: Sequence[Period], moment: datetime) -> Period | None:
    return next((p for p in periods if p.start <= moment < p.end), None)


def _half_hour(moment: datetime) -> datetime:
    return moment.replace(minute=moment.minute // 30 * 30, second=0, microsecond=0)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
