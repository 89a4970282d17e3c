"""The model card's example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

CARD = Path(__file__).resolve().parents[2] / "distill" / "README.md"


def test_the_example_runs(
    tmp_path: Path, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "bundle").symlink_to(bundle_path)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", CARD.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(CARD), "exec"), names)
    assert names["seen"].processed == ("clinical",)
    assert names["table"].n_patients == 200
