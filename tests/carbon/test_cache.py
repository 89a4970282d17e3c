from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from carbon.intensity.cache import ResponseCache

AT = datetime(2024, 5, 1, tzinfo=UTC)


def test_an_answer_outlives_the_process_and_knows_its_age(tmp_path: Path) -> None:
    ResponseCache(tmp_path / "new" / "folder").put("k", "body", AT)
    found = ResponseCache(tmp_path / "new" / "folder").get("k")
    assert found is not None
    assert found.body == "body"
    assert found.age_s(AT + timedelta(minutes=2)) == 120.0
    assert found.age_s(AT - timedelta(minutes=2)) == 0.0
    assert ResponseCache(tmp_path).get("other") is None


def test_memory_only_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = ResponseCache()
    cache.put("k", "body", AT)
    assert cache.get("k") is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key":"k"}', '{"key":"k","fetched_at":"x"}'])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, damage: str) -> None:
    ResponseCache(tmp_path).put("k", "body", AT)
    (file,) = tmp_path.glob("*.json")
    file.write_text(damage)
    assert ResponseCache(tmp_path).get("k") is None


def test_old_answers_are_swept(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, keep_s=3600.0)
    cache.put("old", "1", AT)
    (file,) = tmp_path.glob("*.json")
    os.utime(file, (AT.timestamp(), AT.timestamp()))
    cache.put("new", "2", AT + timedelta(hours=2))
    assert cache.get("old") is None
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_cannot_be_written_costs_only_the_file(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    cache = ResponseCache(blocked)
    cache.put("k", "body", AT)
    assert cache.get("k") is not None
