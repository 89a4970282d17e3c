"""One line of text for a figure with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def auc_line(name: str, card: Mapping[str, Any]) -> str:
    """``name  AUC 0.912 [0.890, 0.934]  n 821``, or why there is none."""
    auc = card["auc"]
    if auc["value"] is None:
        return f"  {name:<34} AUC none: {auc['reason']}"
    low, high = auc["ci95"]
    return f"  {name:<34} AUC {auc['value']:.3f} [{low:.3f}, {high:.3f}]  n {auc['n']}"
