"""Errors of the distillation package: one base, each subclass also the fitting builtin."""

from __future__ import annotations


class DistillError(Exception):
    """Base of every error that ``distill`` raises on purpose."""


class CohortError(DistillError, ValueError):
    """A cohort folder that cannot be used; the message says file, row, column and what to do."""


class TrainingError(DistillError, ValueError):
    """Training cannot go on: too few patients, one class in a fold, nothing to learn from."""


class BudgetSpentError(DistillError, RuntimeError):
    """A run's carbon budget does not reach any further; what was finished by then is kept."""


class BundleError(DistillError, ValueError):
    """A bundle that is incomplete, altered, or not made for what was asked of it."""


class FeatureError(DistillError, ValueError):
    """Feature rows of one case that the bundle's preprocessing cannot accept."""
