"""Errors of the api package: one base, each subclass also the fitting builtin."""

from __future__ import annotations


class ApiError(Exception):
    """Base of every error that ``api`` raises on purpose."""


class SettingsError(ApiError, ValueError):
    """Settings that the server cannot start with; the message says what to change."""


class StateLockedError(ApiError, RuntimeError):
    """Another server already works on this state folder."""


class AuditError(ApiError, ValueError):
    """The audit log does not hold together: a row was changed, taken out or put in."""


class CommandError(ApiError, ValueError):
    """A command was given what it cannot work with."""
