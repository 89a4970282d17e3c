"""One line of text for a figure with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from agent.sessions import SessionSource


def auc_line(name: str, card: Mapping[str, Any]) -> str:
    """``name  AUC 0.912 [0.890, 0.934]  n 821``, or why there is none."""
    auc = card["auc"]
    if auc["value"] is None:
        return f"  {name:<34} AUC none: {auc['reason']}"
    low, high = auc["ci95"]
    return f"  {name:<34} AUC {auc['value']:.3f} [{low:.3f}, {high:.3f}]  n {auc['n']}"


def note_smaller(fitted: SessionSource, opened: SessionSource, cases: int | None) -> None:
    """Say that sessions became smaller than usual, where nobody asked for it."""
    size, usual = fitted.config.n_cases, opened.config.n_cases
    if cases is None and size < usual:
        typer.echo(
            f"note: sessions of {size} cases, not {usual}: half of the smallest fold, so that they "
            "differ. Intervals say how sessions of these few patients vary, not how other patients "
            "would. Choose another size with --cases.",
            err=True,
        )
