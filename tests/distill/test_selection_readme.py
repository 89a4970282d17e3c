"""The selection card's example runs as it stands, and its table names the solvers there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from distill.selection.solvers import SOLVERS

CARD = Path(__file__).resolve().parents[2] / "distill" / "selection" / "README.md"


def test_the_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", CARD.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(CARD), "exec"), names)
    assert names["best"].names == ("TP53", "KRAS")
    assert names["best"].optimal


def test_the_card_names_every_solver() -> None:
    text = CARD.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) >= set(SOLVERS)
