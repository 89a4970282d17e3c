"""The longer examples run, from their command lines, in small."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_hand_written_policy_reviews_held_out_patients(
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = runpy.run_path(str(EXAMPLES / "hand_written_policy.py"))
    results = example["main"](["--sessions", "1"])
    assert results["nothing"] == {"gain": 0.0, "g_co2e": 0.0, "late": 0.0}
    assert results["frugal"]["g_co2e"] > 0.0
    said = capsys.readouterr().out
    assert "synthetic patients" in said
    assert "mean of 1 sessions" in said


def test_training_runs_on_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "train_on_the_environment.py"))
    results = example["main"](["--steps", "128", "--num-envs", "2", "--sessions", "1"])
    assert set(results) == {"learned", "random"}
    assert "paired over 1 sessions" in capsys.readouterr().out
