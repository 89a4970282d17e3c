"""``greenboard carbon backtest``: how well the forecaster would have done on a recorded trace."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.atomic import write_json
from api.cli.progress import stage_bar

if TYPE_CHECKING:
    import numpy as np


def backtest(
    *,
    trace: Annotated[
        Path,
        typer.Option(
            help="Trace (.csv, .csv.gz, .parquet) with time_utc and ci_direct or ci_life."
        ),
    ],
    json_file: Annotated[Path, typer.Option("--json", help="Where the report goes.")],
    basis: Annotated[
        Literal["direct", "life"] | None,
        typer.Option(help="Which figures; direct where the file has them."),
    ] = None,
    delay_min: Annotated[
        int, typer.Option(min=0, max=120, help="How late the feed comes: 0, 30, 60 minutes.")
    ] = 0,
    train_until: Annotated[
        str | None, typer.Option(help="Learn nothing from here on; else refit every six weeks.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="First day scored; else the last half year.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--to", help="The day after the last scored.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small models: seconds, and weaker figures.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of models and resampling.")] = 0,
) -> None:
    """Forecast a recorded period hour by hour as if live, and score it beside its rivals.

    Rolling-origin: each hour is forecast from what was known at its issue. One hour ahead and a day
    ahead, 90 % intervals, with defective rows masked and as the feed came.

      greenboard carbon backtest --trace cc_de.csv.gz --json runs/de.json

      greenboard carbon backtest --trace gb.csv --basis life --delay-min 30 --json runs/gb.json
    """
    from dataclasses import replace

    from carbon.backtest import BacktestConfig
    from carbon.backtest import backtest as run
    from carbon.forecast import QUICK, ForecastConfig
    from carbon.forecast_data import load_forecast_data

    settings = QUICK if quick else ForecastConfig()
    config = BacktestConfig(
        forecast=replace(settings, boost=replace(settings.boost, seed=seed)),
        delay_min=delay_min,
        start=_hour(start, "--from"),
        stop=_hour(stop, "--to"),
        train_until=_hour(train_until, "--train-until"),
        forest_trees=20 if quick else 100,
        seed=seed,
    )
    with stage_bar("backtest") as progress:
        report = run(load_forecast_data(trace, basis), config, progress)
    write_json(json_file, {**report, "quick": quick})
    for line in summary(report):
        typer.echo(line)


def summary(report: dict[str, Any]) -> list[str]:
    """The main figures, a line each."""
    one, day = report["one_hour"], report["day_ahead"]
    rows = [("one hour ahead", one), *((f"  {n}", one[n]) for n in _rivals(one))]
    rows += [("day ahead", day), *((f"  {n}", day[n]) for n in _rivals(day))]
    lines = [f"{report['trace']}, {report['basis']}, {report['from']} to {report['to']}"]
    lines += [f"{name:<20} MAPE {_text(part['mape'])} %" for name, part in rows]
    interval = report["interval90"]
    lines.append(
        f"90 % interval        coverage {_text(interval['coverage'])}, mean width "
        f"{_text(interval['width'])} g/kWh"
    )
    lines += [f"note: {reason}" for reason in one["persistence_gate"]["reasons"]]
    return lines


def _rivals(part: dict[str, Any]) -> list[str]:
    names = ("persistence", "seasonal_naive", "forest", "lagged_forest", "carboncast")
    return [name for name in names if name in part]


def _text(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return f"none ({figure['reason']})"
    low, high = figure["ci95"]
    return f"{figure['value']:.3g} [{low:.3g}, {high:.3g}]"


def _hour(text: str | None, option: str) -> np.datetime64 | None:
    import numpy as np

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a date; write for example 2021-07-01.", param_hint=option
        ) from error
    if moment.utcoffset() is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "h")
