"""What a script imports to book its energy must not wait for models, plots or tables."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"pandas", "sklearn", "lightgbm", "scipy", "matplotlib", "requests", "pyarrow", "torch"}
MODULES = (
    "carbon", "carbon.account", "carbon.account_report", "carbon.attribution", "carbon.budget",
    "carbon.budget_keeper", "carbon.codecarbon", "carbon.declared", "carbon.deployment",
    "carbon.ledger", "carbon.monitor", "api.cli.carbon", "api.cli.carbon_account",
    "api.cli.carbon_books",
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, json, {module}; print(json.dumps([m.split('.')[0] for m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not HEAVY & set(json.loads(done.stdout))
