"""Errors of the carbon package: one base, each subclass also the fitting builtin."""

from __future__ import annotations


class CarbonError(Exception):
    """Base of every error that ``carbon`` raises on purpose."""
