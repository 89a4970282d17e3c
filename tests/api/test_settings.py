"""Settings and keys: what is accepted, where it comes from, and that it fails closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.auth import ApiKey, KeyRing, hash_key, new_key
from api.cli.serve import with_keys
from api.errors import SettingsError
from api.settings import Settings, is_loopback, parse_keys, read_keys, read_settings

SUM = hash_key("a key")


def test_keys_from_text_and_file(tmp_path: Path) -> None:
    keys = parse_keys(f"ada:viewer:{SUM}, bob:admin:{hash_key('b')}")
    assert [(k.name, k.role) for k in keys] == [("ada", "viewer"), ("bob", "admin")]
    file = tmp_path / "keys.toml"
    file.write_text(f'[[key]]\nname = "ada"\nrole = "viewer"\nsha256 = "{SUM}"\n')
    assert read_keys(file) == keys[:1]


@pytest.mark.parametrize(
    "text",
    ["ada:viewer", f"ada:chief:{SUM}", "ada:viewer:plain-key", f":viewer:{SUM}",
     f"ada:viewer:{SUM},ada:admin:{hash_key('b')}", f"a:viewer:{SUM},b:viewer:{SUM}"],
)  # fmt: skip
def test_bad_keys_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_keys(text)
    assert "plain-key" not in str(caught.value)
    assert SUM not in str(caught.value)


def test_environment_is_read_below_options(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GREENBOARD_BUNDLE", "from-environment")
    monkeypatch.setenv("GREENBOARD_WORKERS", "7")
    monkeypatch.setenv("GREENBOARD_KEYS", f"ada:viewer:{SUM}")
    settings = read_settings({"bundle": None, "policy": "rule"})
    assert (settings.bundle, settings.workers) == (Path("from-environment"), 7)
    assert read_settings({"bundle": tmp_path}).bundle == tmp_path
    assert settings.keys[0].name == "ada"
    monkeypatch.setenv("GREENBOARD_WORKERS", "many")
    with pytest.raises(SettingsError, match="workers"):
        read_settings({})


def test_bundle_is_needed(monkeypatch) -> None:
    monkeypatch.delenv("GREENBOARD_BUNDLE", raising=False)
    with pytest.raises(SettingsError, match="bundle"):
        read_settings({})


def test_ring_knows_its_keys_only() -> None:
    key, kept = new_key("ada", "reviewer")
    ring = KeyRing([kept, ApiKey(name="bob", role="admin", sha256=SUM)])
    found = ring.principal(key)
    assert found is not None
    assert (found.name, found.role) == ("ada", "reviewer")
    assert found.may("viewer")
    assert not found.may("admin")
    assert ring.principal("a key").name == "bob"
    assert ring.principal("") is None
    assert KeyRing([]).principal(key) is None
    assert key not in repr(kept)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("example.org", False), ("127.0.0.53", True)],
)  # fmt: skip
def test_without_keys_only_loopback_is_served(host: str, local: bool, capsys) -> None:
    assert is_loopback(host) is local
    settings = Settings(bundle=Path("b"))
    if not local:
        with pytest.raises(SettingsError, match="No API keys"):
            with_keys(settings, host)
        return
    given = with_keys(settings, host)
    said = capsys.readouterr().out
    key = said.strip().rsplit(" ", 1)[1]
    assert said.count(key) == 1
    assert KeyRing(given.keys).principal(key).role == "reviewer"
    assert with_keys(given, "0.0.0.0") is given
