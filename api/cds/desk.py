"""Who may call the CDS service, as the settings say: trusted issuers, everybody, or nobody."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from api.cds.keys import KeySetError
from api.cds.tokens import Proof, TokenError, Tokens
from api.cds.trust import read_trust
from api.errors import SettingsError
from api.problems import ProblemError
from api.settings import Settings, is_loopback
from api.subject import Subjects

OPEN = "open"
REFUSED = 'Bearer realm="greenboard-cds"'
INVALID = REFUSED + ', error="invalid_token"'


@dataclass(frozen=True, kw_only=True)
class CdsCaller:
    """The system that calls.

    Attributes:
        issuer: its name.
        proof: its token; None where everybody may call.
    """

    issuer: str
    proof: Proof | None

    @property
    def may_start(self) -> bool:
        """Whether its calls may post a case."""
        return self.proof is None or self.proof.issuer.start_cases

    def system(self, fhir_server: str | None) -> str:
        """Whose patient ids a call uses.

        Raises:
            ProblemError: 403 if the call names a server that is not its issuer's.
        """
        if self.proof is None:
            # Apart from every trusted system, whatever the call claims.
            return f"{OPEN}:{fhir_server or ''}"
        known = self.proof.issuer.fhir_server
        if fhir_server is not None and known is not None and fhir_server != known:
            raise ProblemError(
                "forbidden", "fhirServer is not the one that is known for the token's issuer."
            )
        return self.proof.issuer.system


class Desk:
    """Lets callers in."""

    def __init__(
        self, *, tokens: Tokens | None, is_open: bool, base: str | None, subjects: Subjects
    ):
        """Put the parts together; see :func:`open_desk`."""
        self._tokens = tokens
        self._open = is_open
        self._base = base
        self.subjects = subjects

    def base(self, asked: str) -> str:
        """Address of this server for links; ``asked`` is how the caller reached it."""
        return self._base or asked.rstrip("/")

    async def admit(
        self, authorization: str | None, paths: tuple[str, ...], now: datetime
    ) -> CdsCaller:
        """Who calls.

        Args:
            authorization: the header as it came.
            paths: what the token may be for, below the server's address.
            now: the present.

        Raises:
            ProblemError: 401 without a good token; 503 if the issuer's keys cannot be had.
        """
        if self._open:
            return CdsCaller(issuer=OPEN, proof=None)
        if self._tokens is None or self._base is None:
            raise _refused(
                "This server trusts no CDS client; start it with a trust file (cds_trust)."
            )
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise _refused("Send a JSON Web Token: 'Authorization: Bearer TOKEN'.")
        audiences = tuple(self._base + path for path in paths)
        try:
            proof = await self._tokens.check(token.strip(), audiences, now)
        except TokenError as error:
            raise _refused(f"The token was not taken: {error}.", INVALID) from error
        except KeySetError as error:
            raise ProblemError(
                "keys-unavailable", str(error), headers={"Retry-After": "5"}
            ) from error
        return CdsCaller(issuer=proof.issuer.iss, proof=proof)


def replayed() -> ProblemError:
    """401 for a token that was used before."""
    return _refused("The token was not taken: its number (jti) was used before.", INVALID)


def _refused(detail: str, challenge: str = REFUSED) -> ProblemError:
    return ProblemError("unauthorized", detail, headers={"WWW-Authenticate": challenge})


def open_desk(settings: Settings) -> Desk:
    """The desk that the settings ask for; the state folder must be there.

    Raises:
        SettingsError: if the trust file cannot be used, its server has no address of its own, or
            everybody would be let in from outside.
    """
    base = settings.public_url
    if settings.cds_open:
        if settings.cds_trust is not None:
            raise SettingsError("cds_open lets everybody in: leave it out, or the trust file.")
        hosts = [settings.host] + ([urlsplit(base).hostname or ""] if base else [])
        if not all(is_loopback(host) for host in hosts):
            raise SettingsError(
                "cds_open lets everybody in and is for tries on this machine only: listen on "
                "127.0.0.1, or name the trusted issuers in a trust file (cds_trust)."
            )
    tokens = None
    if settings.cds_trust is not None:
        if base is None:
            raise SettingsError(
                "A trust file (cds_trust) needs public_url too: tokens are taken for exactly that "
                "address."
            )
        tokens = Tokens(read_trust(settings.cds_trust))
    subjects = Subjects.open(settings.state)
    return Desk(tokens=tokens, is_open=settings.cds_open, base=base, subjects=subjects)
