"""A recorded grid that cannot be used is refused where the environment is made, and says where."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

import envs  # noqa: F401  (registers the ids)
from carbon.errors import TraceError
from envs.setup import build_setup
from envs.toy import toy_evidence

EVIDENCE = toy_evidence(60, 0)
HOURS = 400
START = np.datetime64("2024-01-01T00", "h")


def rows() -> list[str]:
    times = START + np.arange(HOURS).astype("timedelta64[h]")
    return [f"{time}:00,{200 + hour % 24}" for hour, time in enumerate(times)]


def write(path: Path, lines: list[str]) -> str:
    path.write_text("time_utc,ci_direct\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_a_whole_trace_serves(tmp_path: Path) -> None:
    trace = write(tmp_path / "whole.csv", rows())
    setup = build_setup(evidence=EVIDENCE, n_cases=8, trace=trace)
    assert setup.grid.names == ("whole",)
    assert not setup.grid.synthetic


def test_short_gaps_repeat_the_last_value(tmp_path: Path) -> None:
    lines = rows()
    del lines[5:7]
    setup = build_setup(
        evidence=EVIDENCE, n_cases=8, trace=write(tmp_path / "gap.csv", lines), period="all"
    )
    assert setup.grid.g_per_kwh[3:9].tolist() == [203, 204, 204, 204, 207, 208]


def broken(kind: str) -> list[str]:
    lines = rows()
    if kind == "gap":
        del lines[30:40], lines[100:120]
    elif kind == "repeated":
        lines.insert(31, lines[30])
    elif kind == "unsorted":
        lines[30], lines[31] = lines[31], lines[30]
    elif kind == "empty":
        lines[30:40] = [line.split(",")[0] + ",nan" for line in lines[30:40]]
    else:
        lines[30] = lines[30].split(",")[0] + ",-5"
    return lines


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("gap", "10 hours are missing after 2024-01-02T05:00 UTC, the first of 2.*Cut the file"),
        ("repeated", "row 33: 2024-01-02T06.* does not come after .*drop repeated times"),
        ("unsorted", "row 33: .* does not come after the row before it. Sort the file"),
        ("empty", "10 hours are missing after 2024-01-02T05:00 UTC"),
        ("negative", "row 32, column ci_direct: -5 gCO2e/kWh is outside 0 to 3000; check the unit"),
    ],
)
def test_broken_traces_are_refused_with_the_first_place(
    tmp_path: Path, kind: str, says: str
) -> None:
    good = write(tmp_path / "good.csv", rows())
    bad = write(tmp_path / "bad.csv", broken(kind))
    with pytest.raises(TraceError, match=rf"bad\.csv.*{says}"):
        gymnasium.make("greenboard/CaseReview-v1", evidence=EVIDENCE, n_cases=8, trace=[good, bad])
