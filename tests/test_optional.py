"""Tests that compare with optional packages skip without them; CI must have every one."""

from __future__ import annotations

import importlib.util
import os

import pytest


@pytest.mark.parametrize(
    "package", ["captum", "crepes", "dimod", "dwave.samplers", "qiskit", "qiskit_aer"]
)
def test_ci_has_what_the_comparisons_need(package: str) -> None:
    found = importlib.util.find_spec(package.split(".", maxsplit=1)[0]) is not None
    if not found and os.environ.get("CI") != "true":
        pytest.skip(f"{package} is not installed; the tests that compare with it skip too")
    assert found, f"CI must have {package}: it is in requirements.lock"
