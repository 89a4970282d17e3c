"""A comparison over several grids."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from agent.compare import CompareConfig, compare_policies
from agent.report.render import write_report
from agent.sessions import SessionSource
from carbon.intensity.synthetic import synthetic_trace
from envs.config import SessionConfig
from envs.toy import toy_evidence

GRIDS = tuple(synthetic_trace(24 * 60, seed, name=f"grid {seed}") for seed in (1, 2))


def test_a_grid_that_no_session_ran_on_is_left_out(tmp_path: Path) -> None:
    source = SessionSource.of_evidence(
        toy_evidence(200), trace=GRIDS, config=SessionConfig(n_cases=12)
    )
    for sessions, names in ((1, 1), (12, 2)):
        config = CompareConfig(policies=("rule", "always-everything"), sessions=sessions)
        report = compare_policies(
            source, config, tmp_path / str(sessions), command="again",
            created=datetime(2026, 1, 2, tzinfo=UTC), progress=lambda *_: None,
        )  # fmt: skip
        traces = report.statistics["rule"].traces
        assert len(traces) == names
        assert sum(found["reward"].n for found in traces.values()) == sessions
        page, _ = write_report(report, tmp_path / str(sessions))
        assert ("Grid by grid</h2>" in page.read_text()) == bool(traces)
