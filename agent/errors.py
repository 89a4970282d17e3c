"""Errors of the agent package: one base, each subclass also the fitting builtin."""

from __future__ import annotations


class AgentError(Exception):
    """Base of every error that ``agent`` raises on purpose."""
