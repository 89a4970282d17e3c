"""Fixtures that every package's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real cohorts and traces beside the clone; never part of the repository."""
    if SHARED.is_dir():
        return SHARED
    reason = f"real cohorts and traces are not at {SHARED}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have them: {reason}")
    pytest.skip(reason)
