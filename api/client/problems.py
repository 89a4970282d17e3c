"""The server's problems as exceptions: one class for each kind, under one base.

try:
    client.decide(case, action="accept")
except StaleError:
    case = client.read_case(case)       # somebody was quicker: look again
except ApiProblemError as problem:
    print(problem.status, problem.detail)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from api.errors import ApiError

URN = "urn:problem-type:greenboard:"
BLANK = "about:blank"


class ApiProblemError(ApiError):
    """An answer that says what went wrong (RFC 9457). Kinds without a class of their own are this.

    Attributes:
        slug: of classes: the kind of problem, the end of its type URI.
        type: the type URI.
        title: the kind in words.
        status: of the HTTP answer.
        detail: what was wrong this time, and what to do.
        instance: what was asked.
        errors: places and messages, where a request did not fit the schema.
        headers: of the answer, for ``ETag`` or ``Retry-After``.
    """

    slug: ClassVar[str] = ""

    def __init__(
        self,
        *,
        type: str,
        status: int,
        detail: str,
        title: str = "",
        instance: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Keep what the answer said."""
        super().__init__(f"{title or type} ({status}): {detail}")
        self.type = type
        self.title = title
        self.status = status
        self.detail = detail
        self.instance = instance
        self.errors = [dict(error) for error in errors]
        self.headers = dict(headers or {})


class UnreachableError(ApiError, ConnectionError):
    """No answer, however often it was tried."""


class AnswerError(ApiError, ValueError):
    """An answer that is not what the API answers: another server, or another version of it."""


class JobFailedError(ApiError):
    """A job that was waited for and ended without a result."""


class WaitedTooLongError(ApiError, TimeoutError):
    """What was waited for did not come in the time that was given; it may still."""


class MalformedRequestError(ApiProblemError):
    """The request cannot be read."""

    slug = "malformed-request"


class UnauthorizedError(ApiProblemError):
    """No valid API key."""

    slug = "unauthorized"


class ForbiddenError(ApiProblemError):
    """The key's role does not allow this."""

    slug = "forbidden"


class NotFoundError(ApiProblemError):
    """No such resource."""

    slug = "not-found"


class CaseNotFoundError(ApiProblemError):
    """No such case."""

    slug = "case-not-found"


class MethodNotAllowedError(ApiProblemError):
    """The resource does not have this method."""

    slug = "method-not-allowed"


class NotAwaitingClinicianError(ApiProblemError):
    """The case does not wait for this action."""

    slug = "not-awaiting-clinician"


class AlreadyDecidedError(ApiProblemError):
    """The case has a decision."""

    slug = "already-decided"


class SecondReviewerNeededError(ApiProblemError):
    """Another reviewer has to give the second opinion."""

    slug = "second-reviewer-needed"


class NotDeferredError(ApiProblemError):
    """The case is not deferred."""

    slug = "not-deferred"


class StaleError(ApiProblemError):
    """The case has changed since it was read: read it again, then decide."""

    slug = "stale"


class IfMatchNeededError(ApiProblemError):
    """The server wants to know which version was seen: hand in the case, not its id."""

    slug = "if-match-needed"


class BodyTooLargeError(ApiProblemError):
    """The request body is too large."""

    slug = "body-too-large"


class UnsupportedMediaTypeError(ApiProblemError):
    """The body is not JSON."""

    slug = "unsupported-media-type"


class InvalidRequestError(ApiProblemError):
    """The request does not fit the schema; ``errors`` says where."""

    slug = "invalid-request"


class InvalidFeaturesError(ApiProblemError):
    """The bundle cannot take these features."""

    slug = "invalid-features"


class UnknownPolicyError(ApiProblemError):
    """No such policy."""

    slug = "unknown-policy"


class UnknownCohortCaseError(ApiProblemError):
    """The loaded cohort has no such case."""

    slug = "unknown-cohort-case"


class UnavailableTransferError(ApiProblemError):
    """The case cannot take this transfer."""

    slug = "unavailable-transfer"


class UnavailableModalityError(ApiProblemError):
    """The case's modality cannot be marked."""

    slug = "unavailable-modality"


class IdempotencyKeyReusedError(ApiProblemError):
    """The idempotency key belongs to another request."""

    slug = "idempotency-key-reused"


class QueueFullError(ApiProblemError):
    """Too many cases are waiting, however often it was tried."""

    slug = "queue-full"


class InternalServerError(ApiProblemError):
    """Something went wrong in the server."""

    slug = "internal-error"


class CarbonUnavailableError(ApiProblemError):
    """The grid's carbon intensity is not known."""

    slug = "carbon-unavailable"


class NotReadyError(ApiProblemError):
    """The server is not ready, however often it was tried."""

    slug = "not-ready"


class PrefetchMissingError(ApiProblemError):
    """A CDS call did not bring what is needed."""

    slug = "prefetch-missing"


class CardNotFoundError(ApiProblemError):
    """CDS feedback on a card that was not shown."""

    slug = "card-not-found"


class KeysUnavailableError(ApiProblemError):
    """The keys of a CDS client's issuer cannot be had."""

    slug = "keys-unavailable"


class JobNotFoundError(ApiProblemError):
    """No such job."""

    slug = "job-not-found"


class JobFileNotFoundError(ApiProblemError):
    """The job has no such file."""

    slug = "job-file-not-found"


class BundleNotFoundError(ApiProblemError):
    """No such bundle."""

    slug = "bundle-not-found"


class JobOverError(ApiProblemError):
    """The job is over."""

    slug = "job-over"


class NothingToRollBackError(ApiProblemError):
    """No bundle was active before this one."""

    slug = "nothing-to-roll-back"


class InvalidFhirError(ApiProblemError):
    """The FHIR resource cannot be taken."""

    slug = "invalid-fhir"


class InvalidBundleError(ApiProblemError):
    """The bundle cannot be used."""

    slug = "invalid-bundle"


class TooManyWatchersError(ApiProblemError):
    """Too many event streams are open."""

    slug = "too-many-watchers"


class TooManyJobsError(ApiProblemError):
    """Too many jobs are waiting."""

    slug = "too-many-jobs"


class NotRephrasedError(ApiProblemError):
    """There are no other words for this explanation."""

    slug = "not-rephrased"


class HttpError(ApiProblemError):
    """The request was refused."""

    slug = "http-error"


def kinds() -> dict[str, type[ApiProblemError]]:
    """The class of each kind of problem, by its slug."""
    return {kind.slug: kind for kind in ApiProblemError.__subclasses__()}


def problem_of(status: int, body: Any, headers: Mapping[str, str]) -> ApiProblemError:
    """The exception for an answer that is no success.

    Args:
        status: of the answer.
        body: its JSON, or None if it has none.
        headers: of the answer.
    """
    said = body if isinstance(body, dict) else {}
    name = said["type"] if isinstance(said.get("type"), str) else BLANK
    kind = kinds().get(name.removeprefix(URN)) if name.startswith(URN) else None
    found = said.get("errors")
    return (kind or ApiProblemError)(
        type=name,
        title=str(said.get("title") or "The request was not answered as it should be"),
        status=status,
        detail=str(said.get("detail") or f"The server answered {status}."),
        instance=str(said.get("instance") or ""),
        errors=[error for error in found if isinstance(error, dict)]
        if isinstance(found, list)
        else [],
        headers=headers,
    )
