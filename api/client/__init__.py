"""A typed client of the HTTP API, blocking and for asyncio, with the server's own errors.

Importing it is light: none of the server's or the model's libraries come along.
"""

from __future__ import annotations

from api.client.awaiting import AsyncClient
from api.client.blocking import Client
from api.client.events import CaseEvent
from api.client.problems import (
    AlreadyDecidedError,
    AnswerError,
    ApiProblemError,
    CaseNotFoundError,
    ForbiddenError,
    IdempotencyKeyReusedError,
    IfMatchNeededError,
    InvalidFeaturesError,
    InvalidRequestError,
    JobFailedError,
    NotAwaitingClinicianError,
    QueueFullError,
    SecondReviewerNeededError,
    StaleError,
    UnauthorizedError,
    UnreachableError,
    WaitedTooLongError,
)
from api.client.retry import Retry

__all__ = [
    "AlreadyDecidedError",
    "AnswerError",
    "ApiProblemError",
    "AsyncClient",
    "CaseEvent",
    "CaseNotFoundError",
    "Client",
    "ForbiddenError",
    "IdempotencyKeyReusedError",
    "IfMatchNeededError",
    "InvalidFeaturesError",
    "InvalidRequestError",
    "JobFailedError",
    "NotAwaitingClinicianError",
    "QueueFullError",
    "Retry",
    "SecondReviewerNeededError",
    "StaleError",
    "UnauthorizedError",
    "UnreachableError",
    "WaitedTooLongError",
]
