"""From a server's settings to the grid that it asks, without a secret on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.errors import SettingsError
from api.grid import grid_of
from api.settings import read_settings
from carbon.errors import BasisError, IntensityError
from carbon.intensity.build import build_source

TOKEN = "em-token-012345678"


def test_a_server_may_ask_electricity_maps(monkeypatch, tmp_path: Path) -> None:
    file = tmp_path / "em.token"
    file.write_text(TOKEN)
    monkeypatch.setenv("GREENBOARD_ZONE", "DE")
    monkeypatch.setenv("GREENBOARD_TOKEN_FILE", str(file))
    settings = read_settings(
        {"bundle": tmp_path, "state": tmp_path, "source": "electricity-maps", "basis": "life"}
    )
    config = grid_of(settings)
    source = build_source(config)
    assert (source.name, source.basis) == ("electricity-maps", "average-life-consumption")
    assert config.cache_dir == tmp_path / "carbon"
    assert TOKEN not in repr(config) + repr(settings)


def test_a_server_may_ask_about_a_region(tmp_path: Path) -> None:
    settings = read_settings({"bundle": tmp_path, "source": "neso", "neso_region": 13})
    config = grid_of(settings)
    assert (config.neso_region, config.zone) == (13, None)
    assert build_source(config).name == "neso"
    with pytest.raises(IntensityError, match="no region 99"):
        build_source(grid_of(settings.model_copy(update={"neso_region": 99})))


def test_what_cannot_work_stops_the_start(monkeypatch, tmp_path: Path) -> None:
    for name in ("ELECTRICITY_MAPS_TOKEN", "TOKEN_FILE", "WATTTIME_USER"):
        monkeypatch.delenv(f"GREENBOARD_{name}", raising=False)
    plain = read_settings({"bundle": tmp_path, "source": "electricity-maps", "zone": "DE"})
    with pytest.raises(IntensityError, match="needs a token"):
        build_source(grid_of(plain))
    with pytest.raises(SettingsError, match="Cannot read the token file"):
        grid_of(plain.model_copy(update={"token_file": tmp_path / "none"}))
    with pytest.raises(SettingsError, match="basis"):
        read_settings({"bundle": tmp_path, "basis": "both"})
    with pytest.raises(BasisError, match="neso gives"):
        build_source(
            grid_of(read_settings({"bundle": tmp_path, "source": "neso", "basis": "life"}))
        )
