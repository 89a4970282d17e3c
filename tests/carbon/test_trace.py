from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.errors import IntensityError, TraceError
from carbon.intensity.recorded import RecordedSource, Trace, load_trace
from carbon.intensity.synthetic import synthetic_trace

HOUR = timedelta(hours=1)
HEADER = "time_utc,ci_direct,ci_life\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def hourly(n: int) -> str:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = (f"{start + i * HOUR:%Y-%m-%d %H:%M:%S},{100 + i},{200 + i}\n" for i in range(n))
    return HEADER + "".join(rows)


def test_the_basis_decides_the_column(tmp_path: Path) -> None:
    file = write(tmp_path / "grid.csv", hourly(3))
    direct = load_trace(file, "direct", accounting="production", zone="XX")
    life = load_trace(file, "life")
    assert direct.g_per_kwh.tolist() == [100, 101, 102]
    assert life.g_per_kwh.tolist() == [200, 201, 202]
    assert direct.basis == "average-direct-production"
    assert life.basis == "average-life-unstated"
    assert (direct.zone, life.zone, life.name) == ("XX", "grid", "grid")
    assert direct.time_utc.dtype == np.dtype("datetime64[h]")
    assert not direct.estimated.any()
    assert not direct.synthetic


def test_csv_gz_and_parquet_say_the_same(tmp_path: Path) -> None:
    plain = load_trace(write(tmp_path / "a.csv", hourly(30)))
    with gzip.open(tmp_path / "a.csv.gz", "wt", encoding="utf-8") as file:
        file.write(hourly(30))
    times = [datetime(2024, 1, 1, tzinfo=UTC) + i * HOUR for i in range(30)]
    for kind in (pa.timestamp("us", tz="UTC"), pa.timestamp("ms")):
        column = pa.array([t if kind.tz else t.replace(tzinfo=None) for t in times], type=kind)
        table = pa.table({"ci_direct": [100.0 + i for i in range(30)], "time_utc": column})
        pq.write_table(table, tmp_path / "a.parquet")
        again = load_trace(tmp_path / "a.parquet")
        assert np.array_equal(again.g_per_kwh, plain.g_per_kwh)
        assert np.array_equal(again.time_utc, plain.time_utc)
    zipped = load_trace(tmp_path / "a.csv.gz")
    assert np.array_equal(zipped.g_per_kwh, plain.g_per_kwh)
    assert zipped.name == "a"


def test_half_hours_are_averaged_and_offsets_respected(tmp_path: Path) -> None:
    text = (
        "time_utc,ci_direct\n2024-01-01T01:00+01:00,10\n2024-01-01T00:30Z,20\n"
        "2024-01-01T01:00:00Z,\n2024-01-01T01:30Z,50\n"
    )
    trace = load_trace(write(tmp_path / "half.csv", text))
    assert trace.g_per_kwh.tolist() == [15.0, 50.0]
    assert trace.start == datetime(2024, 1, 1, tzinfo=UTC)


def test_short_gaps_repeat_the_last_value_and_say_so(tmp_path: Path) -> None:
    rows = ["00:00:00,10", "01:00:00,", "03:00:00,40", "04:00:00,50"]
    text = "time_utc,ci_direct\n" + "".join(f"2024-01-01 {row}\n" for row in rows)
    trace = load_trace(write(tmp_path / "gap.csv", text), max_gap_h=2)
    assert trace.g_per_kwh.tolist() == [10, 10, 10, 40, 50]
    assert trace.estimated.tolist() == [False, True, True, False, False]
    at = datetime(2024, 1, 1, 1, tzinfo=UTC)
    assert RecordedSource(trace).now(at).kind == "estimated"
    with pytest.raises(TraceError, match="2 hours are missing after 2024-01-01T00"):
        load_trace(tmp_path / "gap.csv", max_gap_h=1)


def test_the_provider_s_own_estimates_are_kept_apart(tmp_path: Path) -> None:
    text = "time_utc,ci_direct,estimated\n2024-01-01 00:00,1,0\n2024-01-01 01:00,2,1\n"
    assert load_trace(write(tmp_path / "e.csv", text)).estimated.tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("time_utc,ci_life\n2024-01-01 00:00,1\n", "lacks the column 'ci_direct'.*ci_life"),
        ("when,ci_direct\n2024-01-01 00:00,1\n", "lacks the column 'time_utc'"),
        ("", "lacks the column"),
        ("time_utc,ci_direct\n", "has no rows"),
        ("time_utc,ci_direct\n2024-01-01 00:00,\n", "every intensity is empty"),
        ("time_utc,ci_direct\nyesterday,1\n", "row 2, column time_utc: 'yesterday'"),
        ("time_utc,ci_direct\n2024-01-01 00:00,high\n", "row 2, column ci_direct: 'high'"),
        ("time_utc,ci_direct\n2024-01-01 00:00,-3\n", "outside 0 to 3000"),
        ("time_utc,ci_direct\n2024-01-01 00:00,inf\n", "outside 0 to 3000"),
        ("time_utc,ci_direct\n2024-01-01 00:00,400000\n", "check the unit"),
        ("time_utc,ci_direct\n2024-01-01 00:00\n", "row 2: 1 cells under 2 headings"),
        (
            "time_utc,ci_direct\n2024-01-01 01:00,1\n2024-01-01 01:00,2\n",
            "row 3: .* does not come after",
        ),
    ],
)
def test_a_bad_file_is_located(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        load_trace(write(tmp_path / "bad.csv", text))


def test_a_file_that_is_not_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No trace at"):
        load_trace(tmp_path / "nowhere.csv")
    with pytest.raises(TraceError, match="a trace is"):
        load_trace(write(tmp_path / "grid.xlsx", "x"))
    with pytest.raises(TraceError, match="cannot be read"):
        load_trace(write(tmp_path / "grid.csv.gz", "not gzip"))
    with pytest.raises(TraceError, match="not a Parquet file"):
        load_trace(write(tmp_path / "grid.parquet", "not parquet at all"))


@settings(max_examples=50, deadline=None)  # each example writes a file
@given(st.binary(max_size=200))
def test_any_bytes_give_a_trace_or_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("wild") / "w.csv"
    file.write_bytes(b"time_utc,ci_direct\n" + content)
    try:
        trace = load_trace(file)
    except TraceError:
        return
    assert np.isfinite(trace.g_per_kwh).all()


cells = st.one_of(
    st.none(), st.floats(min_value=0, max_value=3000), st.sampled_from(["", "nan", "x", "-1"])
)


@settings(max_examples=50, deadline=None)  # each example writes a file
@given(st.lists(st.tuples(st.integers(0, 40), cells), max_size=12))
def test_whatever_rows_come_the_hours_are_consecutive(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, object]]
) -> None:
    file = tmp_path_factory.mktemp("rows") / "r.csv"
    start = datetime(2024, 1, 1, tzinfo=UTC)
    lines = (f"{start + h * HOUR / 2:%Y-%m-%d %H:%M},{'' if v is None else v}" for h, v in rows)
    write(file, "time_utc,ci_direct\n" + "\n".join(lines))
    try:
        trace = load_trace(file, max_gap_h=100)
    except TraceError:
        return
    assert (np.diff(trace.time_utc).astype(int) == 1).all()
    assert len(trace.g_per_kwh) == len(trace)


def make(values: list[float], **changes: object) -> Trace:
    hours = np.datetime64("2024-01-01T00", "h") + np.arange(len(values)).astype("timedelta64[h]")
    fields: dict[str, object] = {
        "time_utc": hours, "g_per_kwh": np.array(values, dtype=np.float64),
        "estimated": np.zeros(len(values), dtype=bool), "basis": "average-direct-unstated",
        "zone": "XX", "name": "made",
    }  # fmt: skip
    return Trace(**(fields | changes))  # type: ignore[arg-type]


def test_the_first_long_gap_is_named_with_what_to_do(tmp_path: Path) -> None:
    """The first one, where the file must be cut, not the longest; short gaps before it are filled.

    Hours whose cell is empty are as missing as hours without a row.
    """
    hours = [0, 2, 3, 8, 9, 30]
    text = "time_utc,ci_direct\n" + "".join(
        f"2024-01-{1 + h // 24:02d} {h % 24:02d}:00,{'' if h == 8 else 5}\n" for h in hours
    )
    with pytest.raises(TraceError) as caught:
        load_trace(write(tmp_path / "gaps.csv", text))
    said = str(caught.value)
    assert "gaps.csv: 5 hours are missing after 2024-01-01T03:00 UTC, the first of 2" in said
    assert "Cut the file there, or allow more: the longest gap has 20." in said
    assert len(load_trace(tmp_path / "gaps.csv", max_gap_h=20)) == 31


@pytest.mark.parametrize(
    ("hours", "says"),
    [
        ([0, 1, 5, 6, 9], "T01:00 UTC is followed by 2024-01-01T05:00 UTC, the first of 2.*cut"),
        ([0, 1, 1, 2], "T01:00 UTC is followed by 2024-01-01T01:00 UTC, .*repeated"),
        ([0, 2, 1], "T00:00 UTC is followed by 2024-01-01T02:00 UTC, the first of 2"),
        ([3, 2, 1], "T03:00 UTC is followed by 2024-01-01T02:00 UTC, .*Sort"),
    ],
)
def test_hours_out_of_order_are_named(hours: list[int], says: str) -> None:
    times = np.datetime64("2024-01-01T00", "h") + np.array(hours).astype("timedelta64[h]")
    with pytest.raises(TraceError, match=says):
        make([1.0] * len(hours), time_utc=times)
    with pytest.raises(TraceError, match="NaT"):
        make([1.0], time_utc=np.array(["NaT"], dtype="datetime64[h]"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_the_first_impossible_intensity_is_named(bad: float) -> None:
    with pytest.raises(TraceError, match=r"at 2024-01-01T02:00 UTC, the first of 2 .*Fill them"):
        make([1.0, 2.0, bad, 4.0, bad])


def test_a_trace_refuses_gaps_and_nonsense() -> None:
    gap = np.array(["2024-01-01T00", "2024-01-01T02"], dtype="datetime64[h]")
    with pytest.raises(TraceError, match="not consecutive"):
        make([1, 2], time_utc=gap)
    with pytest.raises(TraceError, match="not hours"):
        make([1, 2], time_utc=gap.astype("datetime64[s]"))
    with pytest.raises(TraceError, match="finite"):
        make([1, float("nan")])
    with pytest.raises(TraceError, match="one hour at least"):
        make([])


def test_between_cuts_and_outside_is_refused() -> None:
    trace = make([float(i) for i in range(48)])
    part = trace.between(trace.start + 5 * HOUR, trace.start + 8 * HOUR)
    assert part.g_per_kwh.tolist() == [5, 6, 7]
    assert part.end == trace.start + 8 * HOUR
    with pytest.raises(IntensityError, match="covers 2024-01-01 00:00 to 2024-01-03 00:00"):
        RecordedSource(trace).now(trace.end)


def test_replay_keeps_hour_weekday_and_season_and_says_how_old_it_is() -> None:
    trace = synthetic_trace(24 * 400, 0, start=datetime(2023, 1, 1, tzinfo=UTC))
    source = RecordedSource(trace, align="replay")
    for at in (datetime(2031, 7, 9, 17, 5, tzinfo=UTC), datetime(2015, 2, 3, 4, tzinfo=UTC)):
        reading = source.now(at)
        assert trace.start <= reading.time < trace.end
        assert (reading.time.hour, reading.time.weekday()) == (at.hour, at.weekday())
        assert (reading.time - at.replace(minute=0)) % (364 * 24 * HOUR) == timedelta(0)
        assert reading.kind == "estimated"
        assert "replayed from" in reading.note
        assert reading.age_s == max(0.0, (at - reading.time).total_seconds())


def test_replay_of_a_short_trace_keeps_what_it_can() -> None:
    days = RecordedSource(make([float(i) for i in range(48)]), align="replay")
    assert days.now(datetime(2025, 5, 5, 7, tzinfo=UTC)).time.hour == 7
    hours = RecordedSource(make([1.0, 2.0]), align="replay")
    with pytest.raises(IntensityError, match="needs 24 or more"):
        hours.now(datetime(2025, 5, 5, tzinfo=UTC))


def test_the_forecast_is_yesterday_with_its_own_error() -> None:
    values = [100.0 + h for h in range(24)] + [110.0 + h for h in range(24)]
    trace = make(values)
    readings = RecordedSource(trace).forecast(trace.end - HOUR, 26)
    assert [r.g_per_kwh for r in readings[:24]] == values[24:]
    assert [r.g_per_kwh for r in readings[24:]] == values[24:26]
    assert readings[0].uncertainty_g_per_kwh == pytest.approx(10.0)
    assert "same hour of the day before" in readings[0].note
    early = RecordedSource(trace).forecast(trace.start + 2 * HOUR, 2)
    assert [r.g_per_kwh for r in early] == [102.0, 102.0]
    assert early[0].uncertainty_g_per_kwh == pytest.approx(1.0)
    assert "persistence" in early[0].note
    assert RecordedSource(trace).forecast(trace.start, 1)[0].uncertainty_g_per_kwh is None


@pytest.mark.shared_data
def test_the_real_traces_read_whole(shared_data: Path) -> None:
    for name, n in (("cc_ciso", 17_544), ("cc_de", 17_544), ("em_gb", 35_064)):
        file = shared_data / "carbon" / f"{name}.csv.gz"
        direct, life = load_trace(file, "direct"), load_trace(file, "life")
        assert len(direct) == len(life) == n
        # Direct and life-cycle figures of one grid differ by a quarter or more on average.
        assert life.g_per_kwh.mean() > 1.2 * direct.g_per_kwh.mean()
    assert load_trace(shared_data / "carbon" / "em_gb.csv.gz").g_per_kwh[0] == 156.03
