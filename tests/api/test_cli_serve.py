"""``greenboard serve``: what is wrong is one line before anything listens; state is private."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from agent.policies.registry import make_policy
from agent.workflow.doubles import replay_kit
from agent.workflow.kit import ReviewKit
from api import state_lock
from api.app import create_app
from api.cli import main as entry
from api.errors import SettingsError, StateLockedError
from api.settings import NOT_FIELDS, OPTION_NAMES, Settings, read_settings
from distill.evidence import EvidenceTable


def test_a_bundle_that_is_not_there_is_one_line_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state, nowhere = tmp_path / "state", tmp_path / "nowhere"
    arguments = ["serve", "--bundle", str(nowhere), "--state", str(state), "--port", "0"]
    monkeypatch.setattr("sys.argv", ["greenboard", *arguments, "--source", "synthetic"])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith(f"error: No bundle at {nowhere}")
    assert said.err.count("\n") == 1
    assert not state.exists()


@pytest.fixture
def start(settings: Settings, evidence: EvidenceTable) -> Callable[..., None]:
    """Start an app on a state folder, look at it, and stop it again."""

    def kit(given: Settings) -> ReviewKit:
        return replay_kit(evidence, make_policy=make_policy, policy=given.policy)

    def started(look: Callable[[], Any] = lambda: None, **changes: Any) -> None:
        app = create_app(settings.model_copy(update=changes), load=kit)

        async def whole() -> None:
            async with app.router.lifespan_context(app):
                look()

        asyncio.run(whole())

    return started


def test_a_state_that_cannot_be_used_is_named(start: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match=re.escape(str(place))):
            start(state=place)
    for name in ("cases.sqlite", "graph.sqlite"):
        (tmp_path / name / "state").mkdir(parents=True)
        (tmp_path / name / "state" / name).write_text("no database" * 100)
        with pytest.raises(SettingsError, match=rf"{name} cannot be used"):
            start(state=tmp_path / name / "state")


def test_a_state_in_use_is_refused(start: Callable[..., None], settings: Settings) -> None:
    held = state_lock.hold(settings.state)
    with held, pytest.raises(StateLockedError, match="Another server"):
        start()


def modes_of(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@contextmanager
def umask(bits: int) -> Iterator[None]:
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("bits", [0o000, 0o277])
def test_patients_features_are_private_whatever_the_umask(
    bits: int, start: Callable[..., None], tmp_path: Path
) -> None:
    state, modes = tmp_path / "deep" / "state", {}
    state.parent.mkdir()

    def look() -> None:
        modes.update(modes_of(state))

    with umask(bits):
        start(look, state=state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {"cases.sqlite", "cases.sqlite-wal", "graph.sqlite", "serve.lock"} <= set(modes)
    assert set(modes.values()) <= {0o600, 0o400, 0o700}, modes


def test_an_older_state_is_made_private(start: Callable[..., None], settings: Settings) -> None:
    start()
    settings.state.chmod(0o755)
    for path in settings.state.iterdir():
        path.chmod(0o755 if path.is_dir() else 0o644)
    start()
    modes = modes_of(settings.state)
    assert modes.pop("jobs") == 0o700
    assert set(modes.values()) == {0o600}, modes
    # A folder that was there may be anybody's, /tmp for one: it stays as it was.
    assert stat.S_IMODE(settings.state.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("variable", "value", "field", "read"),
    [
        ("HOST", "127.0.0.2", "host", "127.0.0.2"),
        ("PORT", "8123", "port", 8123),
        ("PORT_FILE", "p", "port_file", Path("p")),
        ("BUDGET", "12.5", "budget_g_co2e_per_day", 12.5),
        ("BUDGET_G_CO2E_PER_DAY", "3", "budget_g_co2e_per_day", 3.0),
        ("LIMIT", "day:1:2,month:3:4", "limits", ("day:1:2", "month:3:4")),
        ("REGION", "7", "neso_region", 7),
        ("POSTCODE", "EH1", "neso_postcode", "EH1"),
        ("TOKEN_FILE", "t", "token_file", Path("t")),
        ("POLICY", "", "policy", "planner"),
    ],
)
def test_every_option_can_come_from_the_environment(
    variable: str, value: str, field: str, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"GREENBOARD_{variable}", value)
    assert getattr(read_settings({"bundle": "b"}), field) == read


def test_the_help_promises_no_other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    command = typer.main.get_command(entry.app).commands["serve"]  # type: ignore[attr-defined]
    names = {option.name.upper() for option in command.params} - {"KEYS", "HELP"}
    assert {"PORT_FILE", "BUDGET", "REGION"} <= names
    for name in names:
        monkeypatch.setenv(f"GREENBOARD_{name}", "1")
    # Each is read: what is wrong with a value is said, no name is unknown.
    with pytest.raises(SettingsError, match=r"^Setting '"):
        read_settings({"bundle": "b"})


def test_what_kubernetes_sets_beside_a_service_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "SERVICE_HOST": "10.0.0.7", "SERVICE_PORT": "8000", "PORT": "tcp://10.0.0.7:8000",
        "PORT_8000_TCP": "tcp://10.0.0.7:8000", "PORT_8000_TCP_ADDR": "10.0.0.7",
        "SERVICE_PORT_HTTP": "8000", "WEB_SERVICE_HOST": "10.0.0.8",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"GREENBOARD_{name}", value)
    assert read_settings({"bundle": "b"}).port == Settings(bundle=Path("b")).port


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BUDGET", "nan", "finite number.* as GREENBOARD_BUDGET"),
        ("PORT", "99999", "port"),
        ("BUNDEL", "b", "Unknown setting GREENBOARD_BUNDEL.* Did you mean GREENBOARD_BUNDLE"),
        ("ELECTRICITYMAPS_TOKEN", "secret-7", "Did you mean GREENBOARD_ELECTRICITY_MAPS_TOKEN"),
    ],
)
def test_what_the_environment_gets_wrong_is_refused(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"GREENBOARD_{variable}", value)
    with pytest.raises(SettingsError, match=message) as caught:
        read_settings({"bundle": "b"})
    assert "secret-7" not in str(caught.value)


def test_two_names_of_one_setting_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENBOARD_BUDGET", "1")
    monkeypatch.setenv("GREENBOARD_BUDGET_G_CO2E_PER_DAY", "2")
    with pytest.raises(SettingsError, match="are the same"):
        read_settings({"bundle": "b"})


@pytest.mark.parametrize("name", ["ELECTRICITY_MAPS_TOKEN", "WATTTIME_USER", "KEYS_FILE"])
def test_variables_of_credentials_are_no_surprise(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(f"GREENBOARD_{name}", "")
    assert read_settings({"bundle": tmp_path}).bundle == tmp_path
    if name != "KEYS_FILE":
        monkeypatch.setenv(f"GREENBOARD_{name}", "x")
        assert read_settings({"bundle": tmp_path}).bundle == tmp_path


def test_every_variable_that_code_or_texts_name_is_known() -> None:
    root = Path(entry.__file__).parents[2]
    texts = [path for folder in ("agent", "api", "carbon", "distill", "envs")
             for kind in ("*.py", "*.md") for path in (root / folder).rglob(kind)]  # fmt: skip
    named = re.compile(
        r"GREENBOARD_([A-Z][A-Z_]*[A-Z])\b|(?:PREFIX \+ |_environment_\w+\()\"([A-Z_]+)\""
    )
    found = {a or b for path in texts for a, b in named.findall(path.read_text(encoding="utf-8"))}
    assert {"BUNDLE", "DATABASE_URL", "ELECTRICITY_MAPS_TOKEN", "KEYS"} <= found
    fields = {name.upper() for name in Settings.model_fields}
    assert found <= fields | set(OPTION_NAMES) | set(NOT_FIELDS), found


def test_help_shows_brackets_as_they_are_written() -> None:
    shown = CliRunner().invoke(entry.app, ["serve", "--help"]).stdout
    assert "[[key]]" in shown
    assert "PERIOD:SOFT:HARD[" in re.sub(r"[\s│]+", "", shown)
