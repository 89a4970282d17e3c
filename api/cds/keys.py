"""The issuers' public keys: from a file, or fetched from the one address that is allowed."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from api.cds.trust import Issuer
from api.errors import ApiError, SettingsError

ALGORITHMS = ("ES384", "RS384")
"""What the standard recommends. Everything else is refused, ``none`` and HMAC above all."""
MIN_RSA_BITS = 2048
CACHE_S = 600.0
REFETCH_S = 30.0
"""An unknown key may be a new one, but no more than one question in this time is asked for it."""
RETRY_S = 5.0
"""An address that did not answer is left alone this long, and calls are refused meanwhile."""
TIMEOUT_S = 2.0
MAX_BYTES = 65_536
MAX_KEYS = 50

Keys = Mapping[tuple[str, str], jwt.PyJWK]
"""By key id and algorithm."""


class KeySetError(ApiError):
    """A set of keys that cannot be had or used."""


def read_keys(data: object) -> Keys:
    """The usable keys of a JWK set; keys of other kinds are passed over.

    Raises:
        KeySetError: if it is no set, has no usable key, or two with the same id.
    """
    entries = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise KeySetError(f"A JWK set is an object with up to {MAX_KEYS} 'keys'.")
    keys: dict[tuple[str, str], jwt.PyJWK] = {}
    for entry in entries:
        for algorithm in ALGORITHMS:
            key = _key(entry, algorithm)
            if key is None:
                continue
            name = (entry["kid"], algorithm)
            if name in keys:
                raise KeySetError("Two keys of the set have the same kid.")
            keys[name] = key
    if not keys:
        raise KeySetError(
            "No key of the set fits: an EC key on P-384, or an RSA key of "
            f"{MIN_RSA_BITS} bits or more, with a kid, for signatures."
        )
    return keys


def _key(entry: Any, algorithm: str) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or "d" in entry:
        return None
    if entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    if entry.get("kty") != {"ES384": "EC", "RS384": "RSA"}[algorithm]:
        return None
    try:
        key = jwt.PyJWK.from_dict(entry, algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return key if _strong(key.key) else None


def _strong(key: object) -> bool:
    if isinstance(key, EllipticCurvePublicKey):
        return key.curve.name == "secp384r1"
    return isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS


def read_key_file(path: Path) -> Keys:
    """A JWK set from a file.

    Raises:
        SettingsError: if it cannot be read or has no usable key.
    """
    try:
        return read_keys(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, KeySetError) as error:
        raise SettingsError(f"{path} cannot be used as a JWK set: {error}") from error


class KeyStore:
    """The keys of one issuer.

    Args:
        issuer: whose.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, issuer: Issuer, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Read the file, if there is one; nothing is fetched yet.

        Raises:
            SettingsError: if the file cannot be used.
        """
        self._jku = issuer.jku
        self._fixed: Keys = read_key_file(issuer.jwks) if issuer.jwks is not None else {}
        self._fetched: Keys = {}
        self._good_until = -math.inf
        self._ask_again_at = -math.inf
        self._lock = asyncio.Lock()
        self._monotonic = monotonic

    async def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """The key with this id for this algorithm; None if the issuer has none.

        Raises:
            KeySetError: if the keys would have to be fetched and cannot be.
        """
        name = (kid, algorithm)
        if name in self._fixed:
            return self._fixed[name]
        if self._jku is None:
            return None
        # One question answers all who wait for it.
        async with self._lock:
            now = self._monotonic()
            fresh = now < self._good_until
            if fresh and name in self._fetched:
                return self._fetched[name]
            if now >= self._ask_again_at:
                await self._ask(self._jku, fresh)
            elif not fresh:
                raise KeySetError("The issuer's keys could not be fetched a moment ago.")
        return self._fetched.get(name)

    async def _ask(self, address: str, fresh: bool) -> None:
        """Fetch the set; one that is still good stays if that fails."""
        self._ask_again_at = self._monotonic() + (REFETCH_S if fresh else RETRY_S)
        keys = read_keys(await fetch(address))
        self._fetched = keys
        self._good_until = self._monotonic() + CACHE_S
        self._ask_again_at = self._monotonic() + REFETCH_S


async def fetch(address: str) -> object:
    """Ask an allowed address for its key set: no redirect, no proxy, little time, little data.

    Raises:
        KeySetError: if there is no good answer.
    """
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S, follow_redirects=False) as client,
            client.stream("GET", address, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise KeySetError(f"The issuer's keys: answered {answer.status_code}, not 200.")
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise KeySetError(f"The issuer's keys: more than {MAX_BYTES} bytes.")
        return json.loads(body)
    except (httpx.HTTPError, TimeoutError) as error:
        raise KeySetError(
            f"The issuer's keys cannot be fetched: {type(error).__name__}."
        ) from error
    except (ValueError, RecursionError) as error:
        raise KeySetError("The issuer's keys: the answer is no JSON.") from error
