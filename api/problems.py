"""Every error as problem+json (RFC 9457): stable types, one line of detail, nothing leaked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from agent.errors import AgentError
from agent.workflow.errors import WorkflowError
from api.errors import ApiError
from api.problem_schema import URN, Problem
from api.schemas import Accept, CaseRequest, Override, SendBack
from api.store.cases import CursorError
from carbon.errors import CarbonError
from distill.errors import DistillError, FeatureError
from envs.errors import EnvsError

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True, kw_only=True)
class ProblemType:
    """One kind of problem: its name in the type URI, status and title."""

    slug: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        """The stable type URI."""
        return URN + self.slug


def _type(slug: str, status: int, title: str) -> ProblemType:
    return ProblemType(slug=slug, status=status, title=title)


TYPES: dict[str, ProblemType] = {
    kind.slug: kind
    for kind in (
        _type("malformed-request", 400, "The request cannot be read"),
        _type("unauthorized", 401, "No valid API key"),
        _type("forbidden", 403, "The key's role does not allow this"),
        _type("not-found", 404, "No such resource"),
        _type("case-not-found", 404, "No such case"),
        _type("job-not-found", 404, "No such job"),
        _type("job-file-not-found", 404, "The job has no such file"),
        _type("bundle-not-found", 404, "No such bundle"),
        _type("method-not-allowed", 405, "The resource does not have this method"),
        _type("not-awaiting-clinician", 409, "The case does not wait for a decision"),
        _type("already-decided", 409, "The case has a decision"),
        _type("second-reviewer-needed", 409, "Another reviewer has to give the second opinion"),
        _type("not-deferred", 409, "The case is not deferred"),
        _type("job-over", 409, "The job is over"),
        _type("nothing-to-roll-back", 409, "No bundle was active before this one"),
        _type("prefetch-missing", 412, "The call does not bring what is needed"),
        _type("card-not-found", 404, "No such card was shown to this client"),
        _type("keys-unavailable", 503, "The keys of the token's issuer cannot be had"),
        _type("stale", 412, "The case has changed since it was read"),
        _type("body-too-large", 413, "The request body is too large"),
        _type("unsupported-media-type", 415, "The body is not JSON"),
        _type("invalid-request", 422, "The request does not fit the schema"),
        _type("invalid-features", 422, "The bundle cannot take these features"),
        _type("invalid-fhir", 422, "The FHIR resource cannot be taken"),
        _type("unknown-policy", 422, "No such policy"),
        _type("unknown-cohort-case", 422, "The loaded cohort has no such case"),
        _type("unavailable-transfer", 422, "The case cannot take this transfer"),
        _type("unavailable-modality", 422, "The case's modality cannot be marked"),
        _type("invalid-bundle", 422, "The bundle cannot be used"),
        _type("idempotency-key-reused", 422, "The idempotency key belongs to another request"),
        _type("if-match-needed", 428, "Say which version of the case you saw"),
        _type("too-many-watchers", 429, "Too many event streams are open"),
        _type("queue-full", 429, "Too many cases are waiting"),
        _type("too-many-jobs", 429, "Too many jobs are waiting"),
        _type("not-rephrased", 409, "There are no other words for this explanation"),
        _type("internal-error", 500, "Something went wrong in the server"),
        _type("carbon-unavailable", 503, "The grid's carbon intensity is not known"),
        _type("not-ready", 503, "The server is not ready"),
        _type("http-error", 400, "The request was refused"),
    )
}


class ProblemError(ApiError):
    """Raise it anywhere in a request to answer with a problem."""

    def __init__(self, slug: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Name the kind of problem and say what came, what is allowed and what to do."""
        super().__init__(detail)
        self.kind = TYPES[slug]
        self.detail = detail
        self.headers = dict(headers or {})


def problem_response(
    kind: ProblemType,
    detail: str,
    instance: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
) -> JSONResponse:
    """A problem+json answer."""
    body: dict[str, Any] = {
        "type": kind.uri,
        "title": kind.title,
        "status": status or kind.status,
        "detail": " ".join(detail.split()),
        # A reference to a resource is an address: other characters are encoded in it.
        "instance": quote(instance, safe="/:#%"),
    }
    if errors:
        body["errors"] = errors
    return JSONResponse(
        body, status_code=status or kind.status, headers=dict(headers or {}), media_type=MEDIA_TYPE
    )


BY_ERROR: tuple[tuple[type[Exception], str], ...] = (
    # From the narrow to the wide: the first that fits answers.
    (FeatureError, "invalid-features"),
    (WorkflowError, "internal-error"),
    (CursorError, "malformed-request"),
    (CarbonError, "carbon-unavailable"),
    (DistillError, "internal-error"),
    (EnvsError, "internal-error"),
    (AgentError, "internal-error"),
    (ApiError, "internal-error"),
)
BY_STATUS = {
    400: "malformed-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    415: "unsupported-media-type",
}


def problem_of(error: Exception, instance: str) -> Problem:
    """An error of ours as a problem inside a larger answer."""
    if isinstance(error, ProblemError):
        kind, detail = error.kind, error.detail
    else:
        kind, detail = _told(error)
    return Problem(
        type=kind.uri, title=kind.title, status=kind.status, detail=" ".join(detail.split()),
        instance=instance,
    )  # fmt: skip


def _told(error: Exception) -> tuple[ProblemType, str]:
    """Which kind of problem an error is, and what may be said of it."""
    slug = next(slug for base, slug in BY_ERROR if isinstance(error, base))
    detail = str(error)
    if slug == "internal-error":
        detail = f"{type(error).__name__}; the server's log has the place. Try again later."
    return TYPES[slug], detail


async def _on_problem(request: Request, error: ProblemError) -> JSONResponse:
    return problem_response(error.kind, error.detail, request.url.path, headers=error.headers)


async def _on_package_error(request: Request, error: Exception) -> JSONResponse:
    kind, detail = _told(error)
    return problem_response(kind, detail, request.url.path)


async def _on_http_error(request: Request, error: HTTPException) -> JSONResponse:
    kind = TYPES[BY_STATUS.get(error.status_code, "http-error")]
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    details = {
        404: "There is nothing at this address; see /openapi.json for what there is.",
        405: f"{request.method} is not allowed here; allowed: {headers.get('Allow')}.",
        400: "The body could not be read as JSON; send application/json.",
    }
    detail = details.get(error.status_code, str(error.detail))
    return problem_response(
        kind, detail, request.url.path, status=error.status_code, headers=headers
    )


def _allowed(request: Request) -> list[str]:
    """Every method of this address; the router names those of the first route that fits alone.

    Where a route is for this very address, those that would take it for a name do not count.
    """
    own = request.app.openapi()["paths"].get(request.url.path)
    if own is not None:
        return [method for method in METHODS if method.lower() in own]
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _where(problem: Mapping[str, Any], body: Any) -> str:
    """The place of a problem; names that the caller made up are counted, not repeated.

    ``body/features/#1/#2`` is the second feature of the first modality, as sent: the name of either
    may be a patient's.
    """
    models = (CaseRequest, Accept, Override, SendBack)
    declared = {name for model in models for name in model.model_fields}
    *_, last = problem["loc"]
    parts, here = [], body
    for part in problem["loc"]:
        sent = list(here) if isinstance(here, dict) else []
        if part in sent and part not in declared:
            parts.append(f"#{sent.index(part) + 1}")
        elif (part == last and problem["type"] == "extra_forbidden") or "\ufffd" in str(part):
            # What cannot be written as text comes with its broken characters exchanged.
            parts.append("?")
        else:
            parts.append(str(part))
        here = here[part] if part in sent else here
    return "/".join(parts)[:200]


def _message(problem: Mapping[str, Any]) -> str:
    """What is wrong, in the validator's words; the one kind that repeats a value is put anew."""
    if problem["type"] == "union_tag_invalid":
        allowed = problem["ctx"]
        return f"{allowed['discriminator']} must be one of {allowed['expected_tags']}"
    if problem["type"] == "json_invalid":
        return f"{problem['msg']}: {problem['ctx']['error']}"[:300]
    return str(problem["msg"])[:300]


async def _on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    found = [
        {
            "where": _where(problem, error.body),
            "message": _message(problem),
        }
        for problem in error.errors()[:MAX_ERRORS]
    ]
    broken = any(problem["type"] == "json_invalid" for problem in error.errors())
    kind = TYPES["malformed-request" if broken else "invalid-request"]
    # What came is not repeated: it may be a patient's data.
    first = found[0] if found else {"where": "body", "message": "not valid"}
    message = first["message"].rstrip(".")
    detail = f"{first['where']}: {message}. See /openapi.json for what is allowed."
    return problem_response(kind, detail, request.url.path, errors=found)


async def _on_surprise(request: Request, error: Exception) -> JSONResponse:
    detail = f"{type(error).__name__}; the server's log has the place. Try again later."
    # uvicorn closes the connection after an error that nobody expected; whoever wants to send the
    # next request on it has to know.
    headers = {"Connection": "close"}
    return problem_response(TYPES["internal-error"], detail, request.url.path, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem."""
    app.add_exception_handler(ProblemError, _on_problem)  # type: ignore[arg-type]
    for base, _ in BY_ERROR:
        app.add_exception_handler(base, _on_package_error)
    app.add_exception_handler(HTTPException, _on_http_error)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _on_invalid)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _on_surprise)


def _example(kind: ProblemType) -> dict[str, Any]:
    """What a problem of this kind looks like."""
    return {
        "type": kind.uri,
        "title": kind.title,
        "status": kind.status,
        "detail": "What came, what is allowed, what to do.",
        "instance": "/v1/cases",
    }


def documented(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these kinds of problem, grouped by status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for slug in slugs:
        kind = TYPES[slug]
        response = responses.setdefault(
            kind.status,
            {
                "description": "",
                "content": {
                    MEDIA_TYPE: {
                        "schema": {"$ref": "#/components/schemas/Problem"},
                        "examples": {},
                    }
                },
            },
        )
        note = f"`{kind.uri}`: {kind.title}"
        response["content"][MEDIA_TYPE]["examples"][slug] = {"value": _example(kind)}
        response["description"] = "; ".join(filter(None, [response["description"], note]))
    return responses
