"""What the optional extra ``quantum`` brings, imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from distill.selection.problem import SelectionError


def need(module: str, solver: str) -> Any:
    """Import a module of the extra.

    Raises:
        SelectionError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SelectionError(
            f"Solver {solver!r} needs {module!r}, which is not installed. Install the extra: "
            "pip install 'greenboard[quantum]'; or take 'greedy', 'l1' or 'exact'."
        ) from error
