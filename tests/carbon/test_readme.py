"""The method card's examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

CARD = Path(__file__).resolve().parents[2] / "carbon" / "README.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", CARD.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(CARD), "exec"), names)
    assert names["window"].entry.g_co2e is not None
    assert len(names["ahead"]) == 24
    assert names["reading"].zone == "synthetic"
    names["monitor"].ledger.close()
