"""Would recovered heat make a deployment carbon negative? Counted hour by hour on recorded years.

    python benchmarks/carbon_deployment.py --data ../shared/data/carbon --json runs/deployment.json

For every recorded calendar year of every trace in the folder, on the direct and the life-cycle
basis, and for each declared recovery r x u of heat from a gas boiler (203 gCO2e per kWh of heat,
combustion alone): the hours below break-even, the mean intensity, and the net per kWh of work that
runs all the time. Prints the table of the method card. A recorded year is counted in
full: there is no sampling error, so `ci95` is null.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from carbon.deployment import CarbonNegativeDeployment, deployment_over_year
from carbon.errors import TraceError
from carbon.heat import HeatRecovery
from carbon.intensity.protocol import Scope
from carbon.intensity.recorded import load_trace
from carbon.intensity.trace import Trace

RECOVERIES = ((0.9, 1.0), (0.6, 0.9))
SCOPES: tuple[Scope, ...] = ("direct", "life")


def traces(folder: Path) -> Iterator[Trace]:
    """Every trace of the folder on every basis that it has."""
    for path in sorted((*folder.glob("*.csv.gz"), *folder.glob("*.csv"))):
        for scope in SCOPES:
            try:
                yield load_trace(path, scope)
            except TraceError as error:
                print(f"left out: {error}")


def whole_years(trace: Trace) -> list[int]:
    """Calendar years that the trace covers in full."""
    years, counts = np.unique(trace.time_utc.astype("datetime64[Y]"), return_counts=True)
    return [int(str(year)) for year, n in zip(years, counts) if n >= 8760]


def measure(folder: Path) -> list[CarbonNegativeDeployment]:
    """Every trace, year and recovery."""
    return [
        deployment_over_year(trace, HeatRecovery(recovered=r, used=u), year=year)
        for trace in traces(folder)
        for year in whole_years(trace)
        for r, u in RECOVERIES
    ]


def markdown(found: list[CarbonNegativeDeployment]) -> str:
    """One line a trace, basis and year; the recoveries side by side."""
    limits = [HeatRecovery(recovered=r, used=u).break_even_g_per_kwh for r, u in RECOVERIES]
    heads = [
        f"r {r:g}, u {u:g}: hours below {limit:.1f} | net"
        for (r, u), limit in zip(RECOVERIES, limits)
    ]
    lines = [
        "| trace, basis | year | mean | r needed (u = 1) | " + " | ".join(heads) + " |",
        "|---|---|---|---|" + "---|---|" * len(heads),
    ]
    by_year: dict[tuple[str, str, str], list[CarbonNegativeDeployment]] = {}
    for one in found:
        scope = one.basis.split("-")[1]
        by_year.setdefault((one.trace, scope, one.period[:4]), []).append(one)
    for (trace, scope, year), row in by_year.items():
        needed = row[0].needed_recovered
        cells = [
            f"{one.share_below:.1%} | {'**' if one.negative else ''}{one.net_g_per_kwh:+.1f}"
            f"{'**' if one.negative else ''}"
            for one in row
        ]
        lines.append(
            f"| {Path(trace).name.split('.')[0]}, {scope} | {year} | {row[0].mean_g_per_kwh:.1f} | "
            f"{'none up to 1' if needed is None else f'{needed:.2f}'} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def report_of(found: list[CarbonNegativeDeployment]) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "heat": [
            {"recovered_fraction": r, "used_fraction": u, "displaced_g_co2e_per_kwh_heat": 203.0}
            for r, u in RECOVERIES
        ],
        "deployments": [
            {
                **one.as_dict(),
                "recovered_fraction": one.heat.recovered,
                "used_fraction": one.heat.used,
            }
            for one in found
        ],
    }


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/carbon"))
    parser.add_argument("--json", type=Path, help="JSON file to write")
    options = parser.parse_args()
    found = measure(options.data)
    print(markdown(found))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        partial = options.json.with_suffix(options.json.suffix + ".partial")
        partial.write_text(json.dumps(report_of(found), indent=2) + "\n")
        os.replace(partial, options.json)


if __name__ == "__main__":
    main()
