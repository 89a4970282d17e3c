"""The JSON Web Token that comes with each call: who calls, and that it is this call.

Taken are ES384 and RS384 only, under a key of the issuer that the token names, addressed to exactly
this endpoint, fresh, short-lived, and each once. Nothing that a token says is repeated in an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from api.cds.keys import ALGORITHMS, KeyStore
from api.cds.trust import Issuer
from api.errors import ApiError

LEEWAY = timedelta(seconds=30)
MAX_LIFETIME = timedelta(minutes=10)
MAX_TOKEN_CHARS = 8192
Word = Annotated[str, StringConstraints(min_length=1, max_length=300)]
LATEST = 253_402_300_799
"""The last second that a datetime can name."""


class TokenError(ApiError):
    """A token that is not taken."""


class Header(BaseModel):
    """A token's header: other fields that change what a signature means are refused."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    alg: Word
    kid: Word
    typ: Word
    jku: Word | None = None


class Claims(BaseModel):
    """A token's claims."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    iss: Word
    aud: Word | Annotated[list[Word], Field(min_length=1, max_length=1)]
    exp: float = Field(ge=0, le=LATEST, allow_inf_nan=False)
    iat: float = Field(ge=0, le=LATEST, allow_inf_nan=False)
    nbf: float = Field(default=0, ge=0, le=LATEST, allow_inf_nan=False)
    jti: Word

    @property
    def audience(self) -> str:
        """The one endpoint that it is for."""
        return self.aud if isinstance(self.aud, str) else self.aud[0]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A token that was taken.

    Attributes:
        issuer: who calls.
        number: sum of the issuer and the token's number, to be used once.
        until: when the token is out of date, and its number can be forgotten.
    """

    issuer: Issuer
    number: str
    until: datetime


class Tokens:
    """Checks tokens against the trusted issuers."""

    def __init__(self, issuers: tuple[Issuer, ...]) -> None:
        """Read the issuers' key files.

        Raises:
            SettingsError: if one cannot be used.
        """
        self._issuers = {issuer.iss: issuer for issuer in issuers}
        self._keys = {issuer.iss: KeyStore(issuer) for issuer in issuers}

    async def check(self, token: str, audiences: tuple[str, ...], now: datetime) -> Proof:
        """Take a token or say why not; its number must still be claimed.

        Args:
            token: the token as it came.
            audiences: addresses that it may be for.
            now: the present.

        Raises:
            TokenError: if the token is not taken.
            KeySetError: if the issuer's keys cannot be had.
        """
        header, claims = _read(token)
        issuer = self._issuers.get(claims.iss)
        if issuer is None:
            raise TokenError("its issuer (iss) is not trusted here")
        if header.jku is not None and header.jku != issuer.jku:
            raise TokenError("its key address (jku) is not the one that is known for its issuer")
        key = await self._keys[claims.iss].find(header.kid, header.alg)
        if key is None:
            raise TokenError("its key (kid) is not among its issuer's for this algorithm")
        try:
            jwt.decode(
                token, key, algorithms=[header.alg],
                options={"verify_aud": False, "verify_exp": False, "verify_iat": False,
                         "verify_nbf": False, "verify_iss": False},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise TokenError("its signature does not fit") from error
        if claims.audience not in audiences:
            raise TokenError("it is for another address (aud)")
        _check_times(claims, now)
        text = f"{len(claims.iss)}:{claims.iss}{claims.jti}"
        return Proof(
            issuer=issuer,
            number=hashlib.sha256(text.encode()).hexdigest(),
            until=_moment(claims.exp) + LEEWAY,
        )


def _read(token: str) -> tuple[Header, Claims]:
    """What an unchecked token says; the algorithm is decided here, before any key is looked at."""
    if len(token) > MAX_TOKEN_CHARS:
        raise TokenError("it is too long")
    try:
        unchecked: Mapping[str, Any] = jwt.get_unverified_header(token)
        if unchecked.get("alg") not in ALGORITHMS:
            raise TokenError(f"its algorithm (alg) is not one of {', '.join(ALGORITHMS)}")
        if "crit" in unchecked or "b64" in unchecked:
            raise TokenError("its header has extensions (crit, b64), which are not taken")
        header = Header.model_validate(unchecked)
        claims = Claims.model_validate(
            jwt.decode(token, options={"verify_signature": False, "verify_exp": False})
        )
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        raise TokenError(
            f"{where[0] if where else 'it'} is missing or not as it should be"
        ) from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise TokenError("it is no signed JSON Web Token") from error
    if header.typ.upper() != "JWT":
        raise TokenError("its type (typ) is not JWT")
    return header, claims


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _check_times(claims: Claims, now: datetime) -> None:
    if now >= _moment(claims.exp) + LEEWAY:
        raise TokenError("it is out of date (exp)")
    if _moment(max(claims.iat, claims.nbf)) > now + LEEWAY:
        raise TokenError("it is from the future (iat, nbf)")
    if not 0 < claims.exp - claims.iat <= MAX_LIFETIME.total_seconds():
        raise TokenError(
            f"it lives too long: {MAX_LIFETIME.total_seconds():.0f} s from iat to exp at most"
        )
