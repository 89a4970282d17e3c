"""Grids worldwide from Electricity Maps (API v3); needs a token.

Shapes: Electricity Maps API reference, https://portal.electricitymaps.com/docs. Figures are
average and follow consumption (flow-traced imports); direct or life-cycle as chosen
(``emissionFactorType``). An unknown zone makes the API answer for wherever the caller seems to
be. That is switched off in every request, and an answer for another zone is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlencode

from pydantic import Field, StrictBool

from carbon.errors import IntensityError
from carbon.intensity.answers import (
    Answer,
    GramsPerKwh,
    Moment,
    doubts,
    hours_ahead,
    period_for,
    quote,
    read_answer,
)
from carbon.intensity.cache import ResponseCache
from carbon.intensity.http import HttpClient, HttpStatusError, TextClient
from carbon.intensity.kept import Fetched, Freshness, KeptAnswers
from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    Scope,
    as_utc,
    make_basis,
    require_horizon,
)
from carbon.intensity.secret import Secret, require_private
from carbon.intensity.trace import HOUR

BASE_URL = "https://api.electricitymaps.com/v3"
PROVIDER = "electricity-maps"
WHO = "Electricity Maps"
FACTORS: dict[Scope, str] = {"direct": "direct", "life": "lifecycle"}
HORIZONS_H = (6, 24, 48, 72)
ZONE_KEY = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,12}){0,3}")


class _Point(Answer):
    g_per_kwh: GramsPerKwh | None = Field(default=None, alias="carbonIntensity")
    time: Moment = Field(alias="datetime")
    zone: str | None = None
    factor: str | None = Field(default=None, alias="emissionFactorType")
    estimated: StrictBool | None = Field(default=None, alias="isEstimated")
    method: str | None = Field(default=None, alias="estimationMethod")


class _Said(Answer):
    zone: str | None = None
    factor: str | None = Field(default=None, alias="emissionFactorType")
    error: object = None


class _Latest(_Said, _Point):
    pass


class _History(_Said):
    history: tuple[_Point, ...] = ()


class _Forecast(_Said):
    forecast: tuple[_Point, ...] = ()


Shape = TypeVar("Shape", bound=_Said)


class ElectricityMapsSource:
    """One zone of Electricity Maps as a source.

    Args:
        zone: the zone's key, for example ``DE`` or ``US-CAL-CISO``.
        token: goes into the header ``auth-token`` and nowhere else.
        scope: direct or life-cycle.
        client: how to fetch.
        cache: where answers are kept; in memory where not given.
        base_url: another address that speaks the same shape; https, or this machine.
        freshness: how old an answer may be.
        clock: the present (aware), for the age of cached answers.

    Raises:
        IntensityError: if the zone is none, or the token must not be sent to the address.
    """

    def __init__(
        self,
        *,
        zone: str,
        token: Secret,
        scope: Scope = "life",
        client: TextClient | None = None,
        cache: ResponseCache | None = None,
        base_url: str = BASE_URL,
        freshness: Freshness | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not ZONE_KEY.fullmatch(zone):
            raise IntensityError(
                f"{quote(zone)!r} is no zone of Electricity Maps; zones look like DE, GB or "
                "US-CAL-CISO."
            )
        self.zone = zone
        self._token = token
        self._token.for_header()
        self._scope: Scope = scope
        self._client: TextClient = client if client is not None else HttpClient()
        self._kept = KeptAnswers(cache=cache, freshness=freshness, clock=clock)
        self._base_url = require_private(base_url)

    @property
    def name(self) -> str:
        """``electricity-maps``."""
        return PROVIDER

    @property
    def basis(self) -> Basis:
        """Average, consumption; direct or life-cycle as chosen."""
        return make_basis("average", self._scope, "consumption")

    def now(self, at: datetime) -> IntensityReading:
        """The hour of ``at``, or the latest one published before it.

        Raises:
            IntensityError: if it cannot be had; the message says why.
        """
        moment = as_utc(at)
        latest = self._fetch("latest", _Latest)
        points: tuple[_Point, ...] = (latest.value,)
        if latest.value.g_per_kwh is None or latest.value.time > moment:
            points += self._history_or_nothing()
        point = period_for(points, moment, length=HOUR, oldest_s=self._kept.freshness.latest_s)
        if point is None:
            raise IntensityError(
                f"{WHO} has no figure for {self.zone} at {_shown(moment)} or shortly before it."
            )
        return self._reading(point, moment, latest.stale_note)

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """Electricity Maps' forecast, hour by hour; at most 71 hours, often fewer.

        Nothing is known about its error. Some plans do not include it.

        Raises:
            IntensityError: if there is none; the message says why.
        """
        require_horizon(hours)
        moment = as_utc(at)
        # The first row is the running hour, so one more than is wanted.
        horizon = next((h for h in HORIZONS_H if h > hours), HORIZONS_H[-1])
        fetched = self._fetch("forecast", _Forecast, horizonHours=str(horizon))
        rows = [(point.time, point.g_per_kwh) for point in fetched.value.forecast]
        means = hours_ahead(rows, moment, hours, per_hour=1)
        if not means:
            raise IntensityError(f"{WHO} has no forecast for {self.zone} after {_shown(moment)}.")
        note = "; ".join(
            filter(None, [f"{WHO}' forecast, its error is not published", fetched.stale_note])
        )
        return tuple(
            IntensityReading(
                g_per_kwh=value,
                zone=self.zone,
                time=hour,
                basis=self.basis,
                provider=PROVIDER,
                kind="fallback" if fetched.stale_note else "forecast",
                age_s=0.0,
                note=note,
            )
            for hour, value in means
        )

    def recent(self, at: datetime) -> tuple[IntensityReading, ...]:
        """The hours that ended in the 24 hours before ``at``, where they are known.

        Raises:
            IntensityError: if Electricity Maps does not say.
        """
        moment = as_utc(at)
        fetched = self._fetch("history", _History)
        return tuple(
            self._reading(point, moment, fetched.stale_note)
            for point in fetched.value.history
            if point.g_per_kwh is not None and point.time + HOUR <= moment
        )

    def _history_or_nothing(self) -> tuple[_Point, ...]:
        try:
            return self._fetch("history", _History).value.history
        except IntensityError:
            # Not every plan includes it; what is known of the present may still serve.
            return ()

    def _reading(self, point: _Point, moment: datetime, stale_note: str) -> IntensityReading:
        if point.g_per_kwh is None:
            raise IntensityError(f"{WHO} gives no figure for {self.zone} at {_shown(point.time)}.")
        notes = []
        if point.estimated is None:
            notes.append(f"{WHO} does not say whether this was measured or estimated")
        elif point.estimated:
            notes.append(f"estimated by {WHO} ({quote(point.method or 'method not stated')})")
        if point.time + HOUR <= moment:
            notes.append(f"the latest hour that {WHO} has published before that time")
        doubt = doubts(point.time, moment)
        notes.append(doubt)
        reading = IntensityReading(
            g_per_kwh=point.g_per_kwh,
            zone=self.zone,
            time=point.time,
            basis=self.basis,
            provider=PROVIDER,
            kind="measured" if point.estimated is False and not doubt else "estimated",
            age_s=max(0.0, (moment - point.time).total_seconds()),
            note="; ".join(filter(None, notes)),
        )
        return reading.with_note(stale_note, kind="fallback") if stale_note else reading

    def _fetch(self, what: str, shape: type[Shape], **query: str) -> Fetched[Shape]:
        asked = {
            "zone": self.zone,
            "emissionFactorType": FACTORS[self._scope],
            "shouldUseFallbackCallerLookup": "false",
            **query,
        }
        url = f"{self._base_url}/carbon-intensity/{what}?{urlencode(asked)}"
        return self._kept.fetch(
            url, self._get, lambda u, body: self._checked(u, body, shape), _says_something
        )

    def _get(self, url: str) -> str:
        headers = {"Accept": "application/json", "auth-token": self._token.for_header()}
        try:
            return self._client.get_text(url, headers)
        except HttpStatusError as error:
            hint = {
                401: "the token is not accepted",
                403: "the token's plan does not include this zone or endpoint",
                404: "there is no such zone, or no recent data for it",
            }.get(error.status)
            if hint is None:
                raise
            raise IntensityError(f"{WHO}, zone {self.zone}: {hint}. {error}") from error

    def _checked(self, url: str, body: str, shape: type[Shape]) -> Shape:
        answer = read_answer(shape, url, body, who=WHO)
        if answer.error is not None:
            raise IntensityError(f"{url}: {WHO} says {quote(answer.error)}")
        if answer.zone != self.zone:
            raise IntensityError(
                f"{WHO} answered for the zone {quote(answer.zone)}, not for {self.zone}. It falls "
                "back to where the caller is if it does not know a zone; not taken."
            )
        rows = getattr(answer, "history", ()) or getattr(answer, "forecast", ())
        for part in (answer, *rows):
            if part.zone not in (None, self.zone) or part.factor not in (
                None,
                FACTORS[self._scope],
            ):
                raise IntensityError(
                    f"{WHO} answered for {quote(part.zone)} with {quote(part.factor)} factors; "
                    f"asked were {self.zone} and {FACTORS[self._scope]}. Not taken."
                )
        return answer


def _says_something(answer: _Said) -> bool:
    """Whether an answer is worth keeping: an empty one would hide a good older one."""
    if isinstance(answer, _Latest):
        return answer.g_per_kwh is not None
    rows = getattr(answer, "history", ()) or getattr(answer, "forecast", ())
    return any(row.g_per_kwh is not None for row in rows)


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
