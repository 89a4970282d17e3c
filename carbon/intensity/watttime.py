"""Marginal intensities from WattTime (API v3); needs an account.

Shapes: WattTime API, https://docs.watttime.org. The forecast of the marginal operating emissions
rate (``co2_moer``) comes in pounds of CO2 per MWh, every five minutes, its first point being the
present. WattTime's other well-known figure, the signal index, is a percentile from 0 to 100: it
ranks moments of one region and is no intensity, so it is refused here.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

from pydantic import Field

from carbon.errors import IntensityError
from carbon.intensity.answers import (
    Answer,
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
    Kind,
    as_utc,
    make_basis,
    require_horizon,
)
from carbon.intensity.recorded import HIGHEST_G_PER_KWH
from carbon.intensity.secret import Secret, basic_header, require_private

BASE_URL = "https://api.watttime.org"
PROVIDER = "watttime"
WHO = "WattTime"
SIGNAL = "co2_moer"
UNITS = "lbs_co2_per_mwh"
G_PER_KWH_PER_LB_PER_MWH = 0.45359237
"""A pound is 453.59237 g exactly (international yard and pound agreement, 1959)."""
TOKEN_LIFE_S = 25 * 60.0
"""Tokens last 30 minutes; a new one is fetched a little earlier."""
REFUSED = (401, 403)
DEFAULT_HORIZON_H = 24
LONGEST_HORIZON_H = 72
CLOCKS_DIFFER = timedelta(minutes=5)
REGION = re.compile(r"[A-Z0-9_]{2,40}")


class _Token(Answer):
    token: str


class _Point(Answer):
    time: Moment = Field(alias="point_time")
    lbs_per_mwh: (
        Annotated[
            float,
            Field(
                strict=True,
                ge=0,
                le=HIGHEST_G_PER_KWH / G_PER_KWH_PER_LB_PER_MWH,
                allow_inf_nan=False,
            ),
        ]
        | None
    ) = Field(default=None, alias="value")

    @property
    def g_per_kwh(self) -> float | None:
        """The value in our unit."""
        return None if self.lbs_per_mwh is None else self.lbs_per_mwh * G_PER_KWH_PER_LB_PER_MWH


class _Meta(Answer):
    region: str | None = None
    signal_type: str | None = None
    units: str | None = None
    generated_at: Moment | None = None
    period_s: Annotated[int, Field(ge=60, le=3600)] = Field(
        default=300, alias="data_point_period_seconds"
    )


class _Head(Answer):
    """What an answer is about: read first, so that a percentile is called one."""

    meta: _Meta = _Meta()
    error: object = None


class _Forecast(_Head):
    data: tuple[_Point, ...] = ()


class WattTimeSource:
    """One region's marginal emissions rate as a source.

    It covers CO2 only, no other greenhouse gas, and every value is a forecast, the one for the
    present too: a marginal rate cannot be measured.

    Args:
        region: for example ``CAISO_NORTH``.
        user: of the account; goes to the login only.
        password: of the account; goes to the login only.
        signal_type: ``co2_moer``; anything else is refused.
        client: how to fetch.
        cache: where answers are kept, never the token; in memory where not given.
        base_url: another address that speaks the same shape; https, or this machine.
        freshness: how old an answer may be.
        clock: the present (aware), for the age of cached answers.
        monotonic: clock for the age of the token.

    Raises:
        IntensityError: if the region is none, the signal is no intensity, or the password must
            not be sent to the address.
    """

    def __init__(
        self,
        *,
        region: str,
        user: Secret,
        password: Secret,
        signal_type: str = SIGNAL,
        client: TextClient | None = None,
        cache: ResponseCache | None = None,
        base_url: str = BASE_URL,
        freshness: Freshness | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not REGION.fullmatch(region):
            raise IntensityError(
                f"{quote(region)!r} is no region of WattTime; regions look like CAISO_NORTH."
            )
        if signal_type != SIGNAL:
            _refuse_signal(signal_type)
        self.region = region
        self._client: TextClient = client if client is not None else HttpClient()
        self._kept = KeptAnswers(cache=cache, freshness=freshness, clock=clock)
        self._base_url = require_private(base_url)
        self._login_header = Secret(basic_header(user, password))
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._token: Secret | None = None
        self._token_since_s = 0.0

    @property
    def name(self) -> str:
        """``watttime``."""
        return PROVIDER

    @property
    def basis(self) -> Basis:
        """Marginal, direct."""
        return make_basis("marginal", "direct", "unstated")

    def now(self, at: datetime) -> IntensityReading:
        """The five minutes of ``at``, from the latest forecast.

        Raises:
            IntensityError: if it cannot be had; the message says why.
        """
        moment = as_utc(at)
        fetched = self._fetch(DEFAULT_HORIZON_H)
        answer = fetched.value
        point = period_for(
            answer.data,
            moment,
            length=timedelta(seconds=answer.meta.period_s),
            oldest_s=self._kept.freshness.latest_s,
        )
        if point is None or point.g_per_kwh is None:
            raise IntensityError(
                f"{WHO} has no figure for {self.region} at {moment:%Y-%m-%d %H:%M} UTC or shortly "
                "before it."
            )
        reading = self._reading(point.g_per_kwh, point.time, moment, fetched)
        doubt = doubts(point.time, moment)
        return reading.with_note(doubt) if doubt else reading

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """WattTime's forecast, in means of clock hours; at most 71 hours, often fewer.

        Nothing is known about its error.

        Raises:
            IntensityError: if there is none; the message says why.
        """
        require_horizon(hours)
        moment = as_utc(at)
        # The first clock hour begins within the hour: 24 hours hold 23 whole ones.
        fetched = self._fetch(DEFAULT_HORIZON_H if hours < DEFAULT_HORIZON_H else LONGEST_HORIZON_H)
        rows = [(point.time, point.g_per_kwh) for point in fetched.value.data]
        per_hour = max(1, 3600 // fetched.value.meta.period_s)
        means = hours_ahead(rows, moment, hours, per_hour=per_hour)
        if not means:
            raise IntensityError(
                f"{WHO} has no forecast for {self.region} after {moment:%Y-%m-%d %H:%M} UTC."
            )
        return tuple(self._reading(value, hour, moment, fetched) for hour, value in means)

    def recent(self, at: datetime) -> tuple[IntensityReading, ...]:
        """Nothing: what WattTime publishes of the past is modelled later."""
        as_utc(at)
        return ()

    def _reading(
        self,
        g_per_kwh: float,
        start: datetime,
        moment: datetime,
        fetched: Fetched[_Forecast],
    ) -> IntensityReading:
        made = fetched.value.meta.generated_at
        when = "" if made is None else f" made at {made:%Y-%m-%d %H:%M} UTC"
        notes = [f"{WHO}'s forecast{when}, CO2 only, its error is not published"]
        kind: Kind = "forecast"
        if made is not None:
            old_s = (moment - made).total_seconds()
            if old_s > self._kept.freshness.stale_s:
                notes.append(f"doubtful: the forecast is {old_s / 3600:.1f} h old")
            elif doubt := doubts(made, moment + CLOCKS_DIFFER):
                notes.append(f"{doubt}, as its making is dated")
        if fetched.stale_note:
            kind = "fallback"
            notes.append(fetched.stale_note)
        return IntensityReading(
            g_per_kwh=g_per_kwh,
            zone=self.region,
            time=start,
            basis=self.basis,
            provider=PROVIDER,
            kind=kind,
            age_s=max(0.0, (moment - start).total_seconds()),
            note="; ".join(notes),
        )

    def _fetch(self, horizon_h: int) -> Fetched[_Forecast]:
        query = {"region": self.region, "signal_type": SIGNAL}
        if horizon_h != DEFAULT_HORIZON_H:
            query["horizon_hours"] = str(horizon_h)
        url = f"{self._base_url}/v3/forecast?{urlencode(query)}"
        return self._kept.fetch(
            url,
            self._get,
            self._checked,
            lambda answer: any(point.lbs_per_mwh is not None for point in answer.data),
        )

    def _checked(self, url: str, body: str) -> _Forecast:
        head = read_answer(_Head, url, body, who=WHO)
        if head.error is not None:
            raise IntensityError(f"{url}: {WHO} says {quote(head.error)}")
        meta = head.meta
        if meta.signal_type != SIGNAL or meta.units != UNITS:
            _refuse_signal(f"{meta.signal_type} in {meta.units}")
        if meta.region != self.region:
            raise IntensityError(
                f"{WHO} answered for the region {quote(meta.region)}, not for {self.region}; "
                "not taken."
            )
        return read_answer(_Forecast, url, body, who=WHO)

    def _get(self, url: str) -> str:
        token = self._bearer()
        try:
            return self._with(token, url)
        except HttpStatusError as error:
            if error.status not in REFUSED:
                raise
        try:
            return self._with(self._bearer(instead_of=token), url)
        except HttpStatusError as error:
            if error.status not in REFUSED:
                raise
            raise IntensityError(
                f"{WHO} refuses {self.region} to this account, with a new token as well. {error}"
            ) from error

    def _with(self, token: Secret, url: str) -> str:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token.for_header()}"}
        return self._client.get_text(url, headers)

    def _bearer(self, *, instead_of: Secret | None = None) -> Secret:
        """A token that should be good: the one we hold, unless it is old or was just refused."""
        with self._lock:
            held = self._token
            young = self._monotonic() - self._token_since_s < TOKEN_LIFE_S
            if held is not None and young and held is not instead_of:
                return held
            self._token = self._log_in()
            self._token_since_s = self._monotonic()
            return self._token

    def _log_in(self) -> Secret:
        url = f"{self._base_url}/login"
        headers = {"Accept": "application/json", "Authorization": self._login_header.for_header()}
        try:
            body = self._client.get_text(url, headers)
        except HttpStatusError as error:
            if error.status not in REFUSED:
                raise
            raise IntensityError(
                f"{WHO} does not accept the user name and password. {error}"
            ) from error
        token = Secret(read_answer(_Token, url, body, who=WHO).token, what=f"token from {WHO}")
        token.for_header()
        return token


def _refuse_signal(what: str) -> None:
    said = quote(what)
    if "index" in said or "percent" in said:
        raise IntensityError(
            f"{WHO}'s signal index ({said}) is a percentile from 0 to 100, not a carbon "
            f"intensity; take the signal {SIGNAL} in {UNITS}."
        )
    raise IntensityError(
        f"{WHO}'s signal {said} is not taken as an intensity; only {SIGNAL} in {UNITS} is."
    )
