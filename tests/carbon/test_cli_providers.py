"""The sources that need credentials, from the command line, against a local server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from api.cli.carbon import app
from api.errors import SettingsError
from api.settings import read_access
from carbon.errors import BasisError, IntensityError

if TYPE_CHECKING:
    from tests.carbon.conftest import NesoServer

TEN = datetime(2024, 3, 6, 10, tzinfo=UTC)
AT = "2024-03-06T10:22Z"
TOKEN, USER, PASSWORD = "em-token-012345678", "watt-user-1", "watt-pass-word"
MAPS = ("--source", "electricity-maps", "--zone", "DE", "--basis", "life")
WATT = ("--source", "watttime", "--zone", "CAISO_NORTH")


def run(*arguments: str, **environment: str) -> Any:
    base = {"NO_PROXY": "127.0.0.1", "COLUMNS": "200"}
    return CliRunner().invoke(app, list(arguments), env={**base, **environment})


@pytest.fixture
def provider(neso_server: NesoServer) -> NesoServer:
    row = {"zone": "DE", "carbonIntensity": 322, "datetime": "2024-03-06T10:00Z",
           "emissionFactorType": "lifecycle", "isEstimated": False}  # fmt: skip
    neso_server.answers("/v3/carbon-intensity/latest", {"body": json.dumps(row)})
    points = [
        {"point_time": f"{TEN + timedelta(minutes=5 * i):%Y-%m-%dT%H:%MZ}", "value": 1000.0}
        for i in range(12 * 5)
    ]
    meta = {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh"}
    neso_server.answers("/login", {"body": '{"token":"short-lived-1"}'})
    neso_server.answers("/v3/forecast", {"body": json.dumps({"data": points, "meta": meta})})
    period = {"from": "2024-03-06T10:00Z", "to": "2024-03-06T10:30Z",
              "intensity": {"forecast": 99, "index": "low"}}  # fmt: skip
    body = json.dumps({"data": [{"regionid": 12, "postcode": "RG10", "data": [period]}]})
    neso_server.answers("/regional/postcode/RG10", {"body": body})
    neso_server.answers("/regional/regionid/12", {"body": body})
    return neso_server


def urls(server: NesoServer) -> dict[str, str]:
    return {
        "GREENBOARD_ELECTRICITY_MAPS_URL": server.url + "/v3",
        "GREENBOARD_WATTTIME_URL": server.url,
    }


def test_electricity_maps_by_token_file(provider: NesoServer, tmp_path: Path) -> None:
    file = tmp_path / "em.token"
    file.write_text(f"{TOKEN}\n\n")
    cache = tmp_path / "cache"
    result = run(
        "now", *MAPS, "--at", AT, "--token-file", str(file), "--cache-dir", str(cache), "--json",
        **urls(provider),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    body = json.loads(result.stdout)
    assert body["intensity_g_co2e_per_kwh"]["value"] == 322.0
    assert (body["basis"], body["kind"]) == ("average-life-consumption", "measured")
    assert provider.headers[0]["auth-token"] == TOKEN
    shown = result.output + "".join(f.read_text() for f in cache.rglob("*.json"))
    assert TOKEN not in shown


def test_electricity_maps_by_environment(provider: NesoServer) -> None:
    token = {"GREENBOARD_ELECTRICITY_MAPS_TOKEN": TOKEN}
    result = run("now", *MAPS, "--at", AT, **urls(provider), **token)
    assert result.exit_code == 0, result.output
    assert "322.0 gCO2e/kWh  (measured, average-life-consumption)" in result.output


def test_watttime_by_file_and_by_environment(provider: NesoServer, tmp_path: Path) -> None:
    file = tmp_path / "wt.login"
    file.write_text(f"{USER}\n{PASSWORD}\n")
    ways: list[tuple[tuple[str, ...], dict[str, str]]] = [
        (("--token-file", str(file)), {}),
        ((), {"GREENBOARD_TOKEN_FILE": str(file)}),
        ((), {"GREENBOARD_WATTTIME_USER": USER, "GREENBOARD_WATTTIME_PASSWORD": PASSWORD}),
    ]
    for options, environment in ways:
        result = run(
            "forecast", *WATT, "--hours", "2", "--at", AT, "--json", *options,
            **urls(provider), **environment,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        body = json.loads(result.stdout)
        assert body["basis"] == "marginal-direct-unstated"
        values = [row["intensity_g_co2e_per_kwh"]["value"] for row in body["forecast"]]
        assert values == pytest.approx([453.59237, 453.59237])


def test_a_region_and_a_postcode(provider: NesoServer) -> None:
    for place in (("--postcode", "RG10 9NY"), ("--region", "12")):
        result = run(
            "now", "--source", "neso", *place, "--neso-url", provider.url, "--at", AT, "--json"
        )
        assert result.exit_code == 0, result.output
        body = json.loads(result.stdout)
        assert body["kind"] == "forecast"
        assert body["zone"] in {"GB-RG10", "GB-12"}
    assert "9NY" not in "".join(provider.asked)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (MAPS, IntensityError, "needs a token: give --token-file FILE"),
        (WATT, IntensityError, "needs an account: give --token-file FILE"),
        ((*MAPS[:2], "--token-file", "nowhere"), SettingsError, "Cannot read the token file"),
        (("--token-file", "nowhere"), SettingsError, "is for the source electricity-maps"),
        (("--postcode", "RG10", "--region", "3"), IntensityError, "not both"),
        (("--postcode", "RG10", "--source", "synthetic"), IntensityError, "for the source 'neso'"),
        (("--postcode", "elsewhere"), IntensityError, "no British postcode"),
    ],
    ids=[
        "no token",
        "no account",
        "no file",
        "no use",
        "two places",
        "place unused",
        "no postcode",
    ],
)
def test_what_is_missing_is_said_once_and_clearly(
    arguments: tuple[str, ...], error: type[Exception], says: str
) -> None:
    result = run("now", *arguments)
    assert isinstance(result.exception, error)
    assert says in str(result.exception)


def test_bases_that_cannot_meet_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "t"
    file.write_text(f"{USER}\n{PASSWORD}\n")
    result = run("now", *WATT, "--basis", "life", "--token-file", str(file))
    assert isinstance(result.exception, BasisError)
    chained = run("now", "--source", "neso,watttime", "--zone", "GB", "--token-file", str(file))
    assert isinstance(chained.exception, BasisError)
    assert "would mix" in str(chained.exception)
    file.write_text(TOKEN)
    wrong = run("now", *MAPS, "--accounting", "production", "--token-file", str(file))
    assert isinstance(wrong.exception, BasisError)


def test_a_zone_is_never_guessed(tmp_path: Path) -> None:
    file = tmp_path / "t"
    file.write_text(TOKEN)
    result = run("now", "--source", "electricity-maps", "--token-file", str(file))
    assert isinstance(result.exception, IntensityError)
    assert "never guessed" in str(result.exception)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 lines"),
        (f"{TOKEN}\nmore-of-it\n", "has 2 lines; it takes the token on one line"),
        (f"{TOKEN}\x00", "unprintable"),
    ],
    ids=["empty", "two lines", "unprintable"],
)
def test_token_files_that_do_not_fit_are_not_repeated(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "t"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says) as caught:
        read_access(file, "electricity-maps")
    assert TOKEN not in str(caught.value)
    file.write_bytes(b"\xff\xfe" + TOKEN.encode())
    with pytest.raises(SettingsError, match="UnicodeDecodeError") as caught:
        read_access(file, "electricity-maps")
    assert caught.value.__cause__ is None


def test_credentials_stay_unread_where_no_source_needs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GREENBOARD_ELECTRICITY_MAPS_TOKEN", TOKEN)
    assert read_access(None, "neso,synthetic").electricity_maps_token is None
    access = read_access(None, "neso, electricity-maps")
    assert access.electricity_maps_token is not None
    assert TOKEN not in repr(access)


def test_help_names_the_variables_and_the_file() -> None:
    for command in ("now", "forecast", "schedule"):
        text = run(command, "--help").output
        for part in ("electricity-maps", "watttime", "--token-file", "--postcode", "--region"):
            assert part in text, (command, part)
