"""Errors of the api package: one base, each subclass also the fitting builtin."""

from __future__ import annotations


class ApiError(Exception):
    """Base of every error that ``api`` raises on purpose."""
