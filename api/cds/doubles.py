"""A CDS client with keys of its own: for tests, tries and benchmarks. No command chooses it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from api.routes.cds import HERE

LIFETIME = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A private key, and how its public half is published."""

    kid: str
    algorithm: str
    private: Any

    @classmethod
    def make(cls, algorithm: Literal["ES384", "RS384"], kid: str) -> Signer:
        """A new key of the kind that the algorithm takes."""
        if algorithm == "ES384":
            return cls(
                kid=kid, algorithm=algorithm, private=ec.generate_private_key(ec.SECP384R1())
            )
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return cls(kid=kid, algorithm=algorithm, private=private)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half."""
        algorithm: Any = jwt.get_algorithm_by_name(self.algorithm)
        public = json.loads(algorithm.to_jwk(self.private.public_key()))
        return {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}

    def token(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A signed token."""
        given = {"kid": self.kid, "typ": "JWT", **header}
        return jwt.encode(dict(claims), self.private, algorithm=self.algorithm, headers=given)


def claims(iss: str, audience: str, now: datetime) -> dict[str, Any]:
    """Claims that are taken by whoever trusts the issuer."""
    issued = int(now.timestamp())
    return {
        "iss": iss,
        "aud": audience,
        "iat": issued,
        "exp": issued + int(LIFETIME.total_seconds()),
        "jti": uuid.uuid4().hex,
    }


def service_address(base: str) -> str:
    """What a token of a hook is for."""
    return base + HERE


def write_trust(folder: Path, *signers: Signer, iss: str, **entry: Any) -> Path:
    """A trust file with one issuer; the signers' public keys lie beside it."""
    if signers:
        entry = {"jwks": "issuer.jwks.json", **entry}
        keys = {"keys": [signer.jwk for signer in signers]}
        (folder / "issuer.jwks.json").write_text(json.dumps(keys))
    # What JSON writes for texts and truths is TOML as well.
    lines = [f"{name} = {json.dumps(value)}" for name, value in {"iss": iss, **entry}.items()]
    path = folder / "trust.toml"
    path.write_text("\n".join(["[[issuer]]", *lines]) + "\n")
    return path


def hook(patient: str, fhir_server: str | None, **more: Any) -> dict[str, Any]:
    """The body of a call for a patient's chart."""
    body = {
        "hook": "patient-view",
        "hookInstance": str(uuid.uuid4()),
        "context": {"userId": "Practitioner/7", "patientId": patient},
        **more,
    }
    return body if fhir_server is None else {**body, "fhirServer": fhir_server}
