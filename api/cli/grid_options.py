"""Options that name a grid, the same in every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Zone = Annotated[
    str | None,
    typer.Option(
        help="The grid: a zone of electricity-maps (DE), a region of watttime (CAISO_NORTH), or "
        "the name of a trace's or fixed figure's grid."
    ),
]
Basis = Annotated[
    Literal["direct", "life"], typer.Option("--basis", help="Direct, or life for life-cycle.")
]
Region = Annotated[
    int | None,
    typer.Option(
        min=1, max=17, help="neso: one region, 13 is London; forecasts only, nothing measured."
    ),
]
Postcode = Annotated[
    str | None,
    typer.Option(help="neso: a British postcode, RG10; forecasts only, nothing measured."),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the token of electricity-maps, or with user name and password of watttime "
        "on two lines. Without it: GREENBOARD_ELECTRICITY_MAPS_TOKEN, GREENBOARD_WATTTIME_USER "
        "and GREENBOARD_WATTTIME_PASSWORD."
    ),
]
