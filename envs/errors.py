"""Errors of the envs package: one base, each subclass also the fitting builtin."""

from __future__ import annotations


class EnvsError(Exception):
    """Base of every error that ``envs`` raises on purpose."""
