"""What NESO answers: periods with a measured and a forecast figure, for the nation or a part of it.

Shapes: National Energy System Operator, Carbon Intensity API, https://carbonintensity.org.uk. A
part of the country comes as a list for the present and as an object for a range, and has no
measured figures at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from pydantic import Field, model_validator

from carbon.errors import IntensityError
from carbon.intensity.answers import Answer, GramsPerKwh, Moment, quote, read_answer

NATION = "GB"
REGION_IDS = range(1, 18)
"""14 regions of distribution networks, then England, Scotland and Wales."""
OUTWARD_CODE = re.compile(r"[A-Z]{1,2}[0-9][A-Z0-9]?")
INWARD_CODE = re.compile(r"[0-9][A-Z]{2}")


class Figures(Answer):
    """The two figures of a period; null where there is none."""

    forecast: GramsPerKwh | None = None
    actual: GramsPerKwh | None = None


class Period(Answer):
    """A half-hour."""

    start: Moment = Field(alias="from")
    end: Moment = Field(alias="to")
    intensity: Figures

    @model_validator(mode="after")
    def _short(self) -> Period:
        if not timedelta(0) < self.end - self.start <= timedelta(hours=1):
            raise ValueError("a period must end after its start, within an hour")
        return self


class _Area(Answer):
    regionid: int | None = None
    postcode: str | None = None
    data: tuple[Period, ...] = ()


class _Said(Answer):
    error: dict[str, object] | None = None


class _National(_Said):
    data: tuple[Period, ...] = ()


class _Regional(_Said):
    data: tuple[_Area, ...] | _Area = ()


@dataclass(frozen=True, kw_only=True)
class NesoPlace:
    """A part of Great Britain that NESO knows; the nation where nothing is given.

    Attributes:
        region_id: 1 to 17.
        postcode: the outward code (``RG10``); of a full one, only this part is kept and sent.

    Raises:
        IntensityError: if both are given, or if one is none of NESO's.
    """

    region_id: int | None = None
    postcode: str | None = None

    def __post_init__(self) -> None:
        if self.region_id is not None and self.postcode is not None:
            raise IntensityError("Give NESO a region or a postcode, not both.")
        if self.region_id is not None and self.region_id not in REGION_IDS:
            raise IntensityError(
                f"NESO has no region {self.region_id}; regions are 1 to {REGION_IDS[-1]}, for "
                "example 13 for London."
            )
        if self.postcode is not None:
            object.__setattr__(self, "postcode", _outward(self.postcode))

    @property
    def is_nation(self) -> bool:
        """Whether it is all of Great Britain."""
        return self.region_id is None and self.postcode is None

    @property
    def zone(self) -> str:
        """``GB``, ``GB-13`` or ``GB-RG10``."""
        part = self.postcode if self.region_id is None else str(self.region_id)
        return NATION if part is None else f"{NATION}-{part}"

    def path(self, span: str = "") -> str:
        """Path of an answer for the present, or for a span such as ``<from>/fw24h``."""
        range_ = f"/{span}" if span else ""
        if self.is_nation:
            return f"/intensity{range_}"
        base = f"/regional/intensity{range_}" if span else "/regional"
        if self.postcode is not None:
            return f"{base}/postcode/{self.postcode}"
        return f"{base}/regionid/{self.region_id}"

    def read(self, url: str, body: str) -> tuple[Period, ...]:
        """The periods of an answer.

        Raises:
            IntensityError: if it is not NESO's shape, an error, or about another place.
        """
        if self.is_nation:
            nation = read_answer(_National, url, body, who="NESO")
            _require_no_error(url, nation)
            return nation.data
        answer = read_answer(_Regional, url, body, who="NESO")
        _require_no_error(url, answer)
        areas = answer.data if isinstance(answer.data, tuple) else (answer.data,)
        for area in areas:
            self._require_here(url, area)
        # A measured figure for a region does not exist; what claims to be one is not believed.
        return tuple(
            period.model_copy(update={"intensity": Figures(forecast=period.intensity.forecast)})
            for area in areas
            for period in area.data
        )

    def _require_here(self, url: str, area: _Area) -> None:
        if self.postcode is not None:
            found: object = area.postcode.strip().upper() if area.postcode else None
            wanted: object = self.postcode
        else:
            found, wanted = area.regionid, self.region_id
        # Some answers leave the place out; the address then vouches for it, as nothing falls back.
        if found is not None and found != wanted:
            raise IntensityError(
                f"{url}: NESO answered for {quote(found)}, not for {wanted}; not taken."
            )


NATIONWIDE = NesoPlace()


def _outward(postcode: str) -> str:
    text = "".join(postcode.split()).upper()
    if len(text) > 4 and INWARD_CODE.fullmatch(text[-3:]):
        text = text[:-3]
    if not OUTWARD_CODE.fullmatch(text):
        # Not repeated: it may be somebody's address.
        raise IntensityError(
            "That is no British postcode; give its outward part, for example RG10 or SW1A."
        )
    return text


def _require_no_error(url: str, answer: _Said) -> None:
    if answer.error is not None:
        raise IntensityError(f"{url}: NESO says {quote(answer.error.get('message', answer.error))}")
