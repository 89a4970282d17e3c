"""Figures as text: the same digits everywhere in a report."""

from __future__ import annotations

from agent.statistics import Estimate


def number(value: float, digits: int = 3, *, sign: bool = False) -> str:
    """A figure with fixed digits, thousands set apart, and no minus before a zero."""
    rounded = round(value, digits)
    text = f"{rounded + 0.0:{'+' if sign else ''},.{digits}f}"
    return text.lstrip("+-") if rounded == 0 else text


def interval(estimate: Estimate, digits: int = 3, scale: float = 1.0, *, sign: bool = False) -> str:
    """``0.123 [0.110, 0.131]``."""
    value, low, high = (
        number(scale * x, digits, sign=sign) for x in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def percent(share: float | None, digits: int = 0) -> str:
    """``12%``; ``-`` where there is no figure."""
    return "-" if share is None else f"{share:.{digits}%}"


def p_value(p: float | None) -> str:
    """``0.012``; below what three digits can say, ``<0.001``."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def listed(names: tuple[str, ...] | list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(names) <= 1:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
