"""Whose calls are answered: a TOML file of issuers and their keys.

```toml
[[issuer]]
iss = "https://ehr.example.org"            # as it stands in the tokens
jku = "https://ehr.example.org/jwks.json"  # fetched from here and nowhere else
# jwks = "ehr.jwks.json"                   # or: a file beside this one, read at the start
fhir_server = "https://ehr.example.org/fhir"   # whose patient ids they are; calls may name no other
start_cases = true                         # may its calls post a case from their prefetch?
```
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from api.cds.schemas import Address
from api.errors import SettingsError
from api.settings import is_loopback


def secure_address(address: str) -> str:
    """An address whose answer nobody on the way can change: https, or this machine."""
    parts = urlsplit(address)
    if parts.username or parts.password or parts.fragment:
        raise ValueError("an address without user, password and fragment")
    if parts.scheme == "https" and parts.hostname:
        return address
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return address
    raise ValueError("an https address (http only to this machine)")


class Issuer(BaseModel):
    """One system whose tokens are taken.

    Attributes:
        iss: its name in tokens.
        jku: where its keys are published; a token may name this address and no other.
        jwks: file with its keys, instead of or beside ``jku``.
        fhir_server: the server whose patient ids it uses; a call that names another is refused.
        start_cases: whether a call may post a case from what it brings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iss: str = Field(min_length=1, max_length=300)
    jku: Annotated[str, AfterValidator(secure_address)] | None = None
    jwks: Path | None = None
    fhir_server: Address | None = None
    start_cases: bool = False

    @model_validator(mode="after")
    def _has_keys(self) -> Issuer:
        if self.jku is None and self.jwks is None:
            raise ValueError("give 'jku', 'jwks' or both")
        return self

    @property
    def system(self) -> str:
        """Whose patient ids they are."""
        return self.fhir_server or self.iss


def read_trust(path: Path) -> tuple[Issuer, ...]:
    """Read the file; paths in it are relative to it.

    Raises:
        SettingsError: if it cannot be read, an entry is not valid, or two have the same name.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"Cannot read the trusted issuers from {path}: {error}.") from error
    entries = data.get("issuer")
    if set(data) != {"issuer"} or not isinstance(entries, list) or not entries:
        raise SettingsError(
            f"{path} must hold one or more [[issuer]] tables with iss and jku or jwks."
        )
    issuers = tuple(_issuer(entry, i, path) for i, entry in enumerate(entries))
    if len({issuer.iss for issuer in issuers}) != len(issuers):
        raise SettingsError(f"Two entries of {path} have the same iss; keep one of them.")
    return issuers


def _issuer(entry: object, index: int, path: Path) -> Issuer:
    try:
        issuer = Issuer.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "entry"
        raise SettingsError(
            f"Entry {index + 1} of {path} is not valid ({where}: {first['msg']}); it takes iss, "
            "jku or jwks, and where wanted fhir_server and start_cases."
        ) from None
    if issuer.jwks is None:
        return issuer
    return issuer.model_copy(update={"jwks": path.parent / issuer.jwks})
