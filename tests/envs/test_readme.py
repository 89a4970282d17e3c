"""The environment card's examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CARD = ROOT / "envs" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", CARD.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("source", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_cards_examples_run(source: str) -> None:
    exec(compile(source, str(CARD), "exec"), {})


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3
