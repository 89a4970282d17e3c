"""Errors of the carbon package: one base, each subclass also the fitting builtin."""

from __future__ import annotations


class CarbonError(Exception):
    """Base of every error that ``carbon`` raises on purpose."""


class UnitError(CarbonError, ValueError):
    """A quantity that cannot be what it claims: not finite, or negative where it may not be."""


class PipelineError(CarbonError, ValueError):
    """A declared pipeline, or an assumption about its hardware, that makes no physical sense."""


class BasisError(CarbonError, ValueError):
    """Two carbon intensities on different bases were about to be compared, chained or summed."""


class TraceError(CarbonError, ValueError):
    """A recorded trace that cannot be read; the message says file, row, column and what to do."""


class IntensityError(CarbonError, LookupError):
    """No source could give the carbon intensity that was asked for."""


class MeterError(CarbonError, ValueError):
    """A meter that was asked for something it cannot do; never for a counter that is unreadable."""


class LedgerError(CarbonError, ValueError):
    """A ledger that is damaged beyond an unfinished last line, or that could not be written."""


class HeatError(CarbonError, ValueError):
    """Recovered heat that was declared in a way that physics or the standard does not allow."""


class AccountError(CarbonError, ValueError):
    """An account that cannot be drawn up from what was given; says what is missing or wrong."""


class BudgetError(CarbonError, ValueError):
    """A budget whose limits, period or time zone make no sense."""


class NotReadyError(IntensityError):
    """The learned forecaster cannot answer for this moment; the message says why."""
