"""Five import packages, one distribution: nothing else may claim or overwrite them."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("agent", "api", "carbon", "distill", "envs")


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_distribution_claims_our_names(name: str) -> None:
    owners = set(importlib.metadata.packages_distributions().get(name, []))
    assert owners <= {"greenboard"}, f"{name} is also claimed by {owners - {'greenboard'}}"


def test_all_packages_share_one_root() -> None:
    roots = {Path(str(importlib.import_module(name).__file__)).parents[1] for name in PACKAGES}
    assert len(roots) == 1


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("carbon", ("torch", "pandas", "requests")),
        ("distill", ("torch", "pandas", "lightgbm")),
        ("distill.evidence", ("torch", "pandas")),
        ("envs", ("torch", "stable_baselines3", "pandas")),
        ("agent", ("torch", "langgraph")),
        ("agent.policies.learned", ("torch", "stable_baselines3")),
        ("api", ("fastapi", "torch")),
        ("api.cli.main", ("torch", "fastapi", "langgraph", "matplotlib")),
        ("distill.runtime", ("torch",)),
    ],
)
def test_imports_stay_light(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert result.stdout.split() == []
