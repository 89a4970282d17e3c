"""Who a case is about, to the systems that ask: a keyed sum, never an identifier.

Hooks and FHIR name a patient by an id of their own system. What is kept of it is an HMAC under a
key that never leaves the state folder, so that nobody can try ids out against a copy of the store.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from api.errors import SettingsError

KEY_FILE = "subject.key"
KEY_BYTES = 32
MODE = 0o600


@dataclass(frozen=True, kw_only=True)
class Subjects:
    """Turns a system's patient id into the text by which its cases are found."""

    key: bytes = field(repr=False)

    @classmethod
    def open(cls, state: Path) -> Subjects:
        """The key of this state folder; made once, readable by the server's user alone.

        Raises:
            SettingsError: if the key cannot be read or made, or is not one.
        """
        path = state / KEY_FILE
        try:
            key = _read_or_make(path)
        except OSError as error:
            raise SettingsError(
                f"{path} cannot be used ({error.strerror or error}); it must be a file of the "
                "server's own user."
            ) from error
        if len(key) != KEY_BYTES:
            raise SettingsError(
                f"{path} is no key of {KEY_BYTES} bytes; put it aside (cases posted so far are "
                "then no longer found by patient)."
            )
        return cls(key=key)

    def of(self, system: str, patient_id: str) -> str:
        """The sum for a patient of one system; 64 hexadecimal digits.

        Args:
            system: whose id it is: a token's issuer, or the address of a FHIR server.
            patient_id: the id there, without ``Patient/``.
        """
        # The length keeps ("ab", "c") and ("a", "bc") apart.
        message = f"{len(system)}:{system}{patient_id}".encode()
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()


def _read_or_make(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    except FileExistsError:
        path.chmod(MODE)
        return path.read_bytes()
    key = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key
