"""Errors of the review workflow."""

from __future__ import annotations

from agent.errors import AgentError


class WorkflowError(AgentError, ValueError):
    """A case that the workflow cannot take on or carry further; the message says why."""


class CaseNotWaitingError(WorkflowError):
    """A case was resumed that does not wait for what was handed in."""
