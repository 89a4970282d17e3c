"""Credentials that never show themselves: not in a repr, a log, an error or a file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import NoReturn, final
from urllib.parse import urlsplit

from carbon.errors import IntensityError

SHORTEST_BLANKED = 6
"""Shorter texts turn up in any answer by chance; no provider gives out such a secret."""
CREDENTIAL_HEADERS = frozenset({"authorization", "auth-token"})
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@final
class Secret:
    """A token or password.

    Args:
        text: the secret; space around it, as files and variables often have, is cut off.
        what: what it is, for messages.

    Raises:
        IntensityError: if it is empty or holds what no header can (the text is not repeated).
    """

    __slots__ = ("_text",)

    def __init__(self, text: str, *, what: str = "secret") -> None:
        stripped = text.strip()
        if not stripped or not stripped.isprintable():
            raise IntensityError(f"The {what} is empty or holds unprintable characters.")
        self._text = stripped

    def reveal(self) -> str:
        """The text, for the one header that needs it."""
        return self._text

    def for_header(self) -> str:
        """The text, where it goes into a header as it is.

        Raises:
            IntensityError: if it holds what a header cannot (the text is not repeated).
        """
        if not self._text.isascii():
            raise IntensityError(
                "A token holds letters that no header can; check where it is kept."
            )
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A secret is not written anywhere.")


def basic_header(user: Secret, password: Secret) -> str:
    """Value of an ``Authorization`` header for a user and a password (RFC 7617, UTF-8)."""
    pair = f"{user.reveal()}:{password.reveal()}".encode()
    return "Basic " + base64.b64encode(pair).decode("ascii")


def credentials_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Every text in these headers that must not be seen, longest first."""
    found: set[str] = set()
    for name, value in headers.items():
        if name.lower() in CREDENTIAL_HEADERS:
            scheme, _, rest = value.rpartition(" ")
            found.update({value, rest})
            if scheme.lower() == "basic":
                found.update(_pair(rest))
    return tuple(sorted(found, key=len, reverse=True))


def blank(text: str, hidden: Iterable[str]) -> str:
    """The text with every credential in it replaced by ``***``."""
    for secret in hidden:
        if len(secret) >= SHORTEST_BLANKED:
            text = text.replace(secret, "***")
    return text


def require_private(base_url: str) -> str:
    """The address without its last slash, if credentials may be sent there.

    Raises:
        IntensityError: unless it is https, or this machine itself.
    """
    try:
        parts = urlsplit(base_url)
    except ValueError as error:
        raise IntensityError("A provider's address cannot be read; write https://host.") from error
    if parts.username is not None or parts.password is not None:
        raise IntensityError("A provider's address must not hold credentials; give them apart.")
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK):
        return base_url.rstrip("/")
    raise IntensityError(
        f"Credentials are not sent to {base_url!r}: use an https address, or one on this machine."
    )


def _pair(encoded: str) -> tuple[str, ...]:
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ()
    return user, password
