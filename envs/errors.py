"""Errors of the envs package: one base, each subclass also the fitting builtin."""

from __future__ import annotations


class EnvsError(Exception):
    """Base of every error that ``envs`` raises on purpose."""


class ConfigError(EnvsError, ValueError):
    """A session configuration that cannot be used: unknown field, value out of range."""


class CatalogueError(EnvsError, ValueError):
    """An action that the catalogue does not have, or a catalogue that cannot be built."""


class LayoutError(EnvsError, ValueError):
    """An observation, or a stored layout, that does not fit the layout at hand."""


class GainError(EnvsError, ValueError):
    """A gain model that cannot be fitted or does not fit the evidence it is used with."""


class LeakWarning(UserWarning):
    """Figures that would be too good, because something was fitted on the patients reviewed."""


class SessionError(EnvsError, ValueError):
    """Sessions that cannot be drawn: unknown fold, too few patients, a trace too short."""
