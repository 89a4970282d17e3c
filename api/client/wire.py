"""Requests and answers as values: what is asked, and how its answer is read. Nothing is sent here.

Both clients send the same values, so that they cannot differ in what they ask or understand.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from api.client.problems import AnswerError, problem_of
from api.schemas import CaseSummary

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
KEY_BYTES = 18

CaseRef = CaseSummary | str
"""A case that was read, or its id. The former says which version was seen."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        method: of HTTP.
        path: below the server's address.
        read: makes the result of a successful answer.
        params: of the query; None ones are left out.
        body: JSON, or None.
        headers: beside those of every request.
        again: whether it is sent again when the answer is "not now".
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    again: bool = True

    def query(self) -> list[tuple[str, str | int | float | bool | None]]:
        """The parameters as they are sent."""
        pairs: list[tuple[str, str | int | float | bool | None]] = []
        for name, value in self.params.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if one is not None:
                    pairs.append((name, _written(one)))
        return pairs


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def get(
    path: str, read: Callable[[httpx.Response], T], params: Mapping[str, Any] | None = None
) -> Call[T]:
    """A reading request."""
    return Call(method="GET", path=path, read=read, params=params or {})


def post(
    path: str,
    read: Callable[[httpx.Response], T],
    body: Any = None,
    *,
    key: str | None,
    seen: CaseRef | None = None,
    headers: Mapping[str, str] | None = None,
) -> Call[T]:
    """A changing request: under a key of its own, so that sending it twice is sending it once.

    Args:
        path: below the server's address.
        read: makes the result of the answer.
        body: JSON.
        key: the caller's Idempotency-Key; a new one if None.
        seen: the case as it was read; what it was then is said with If-Match.
        headers: more of them.
    """
    sent = {**(headers or {}), "Idempotency-Key": key or secrets.token_urlsafe(KEY_BYTES)}
    if isinstance(seen, CaseSummary):
        sent["If-Match"] = f'"{seen.version}"'
    return Call(method="POST", path=path, read=read, body=body, headers=sent)


def case_path(case: CaseRef, *more: str) -> str:
    """Address of a case or of something of it."""
    return under("/v1/cases", case if isinstance(case, str) else case.id, *more)


def under(base: str, *parts: str) -> str:
    """An address with parts that may hold anything."""
    return "/".join((base, *(quote(part, safe="") for part in parts)))


def model(kind: type[M]) -> Callable[[httpx.Response], M]:
    """Reads an answer as this model; fields of later versions are passed over."""

    def read(response: httpx.Response) -> M:
        return _validated(kind, _parsed(response.content, response), response)

    return read


def _validated(kind: type[M], data: Any, response: httpx.Response) -> M:
    try:
        return kind.model_validate(data, extra="ignore")
    except ValidationError as error:
        first = error.errors()[0]
        raise AnswerError(
            f"The answer to {response.request.method} {response.request.url.path} is no "
            f"{kind.__name__} ({'.'.join(map(str, first['loc']))}: {first['msg']}); is the "
            "server of another version?"
        ) from error


def _parsed(text: bytes, response: httpx.Response) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise AnswerError(
            f"The answer to {response.request.method} {response.request.url.path} is no JSON; is "
            "this the address of a greenboard server?"
        ) from error


def json_of(response: httpx.Response) -> dict[str, Any]:
    """An answer that is a JSON object of another standard."""
    found = _parsed(response.content, response)
    if not isinstance(found, dict):
        raise AnswerError(f"The answer to {response.request.url.path} is no JSON object.")
    return found


def text_of(response: httpx.Response) -> str:
    """The text of an answer."""
    return response.text


def bytes_of(response: httpx.Response) -> bytes:
    """An answer as it came."""
    return response.content


def json_lines(kind: type[M]) -> Callable[[httpx.Response], list[M]]:
    """Reads JSON Lines, each as this model."""

    def read(response: httpx.Response) -> list[M]:
        # Other marks that Unicode calls line ends may stand inside JSON.
        lines = [line for line in response.content.split(b"\n") if line.strip()]
        return [_validated(kind, _parsed(line, response), response) for line in lines]

    return read


def check(response: httpx.Response) -> None:
    """Raise what an answer that is no success says.

    Raises:
        ApiProblemError: the class of its kind.
    """
    if response.is_success:
        return
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    raise problem_of(response.status_code, body, response.headers)
