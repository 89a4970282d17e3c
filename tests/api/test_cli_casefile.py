"""Case files of ``greenboard review``: what is wrong, where, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.cli.casefile import read_case, refuse_past
from api.errors import CommandError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b'{\n  "clinical": {4711}\n}', "line 2, column 16: Expecting property name"),
        (b"\xff\xfe", "byte 1 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
    ids=["missing", "broken", "bytes", "nested"],
)
def test_a_file_that_cannot_be_read_says_where_and_what_to_do(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "case.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError) as caught:
        read_case(path)
    said = str(caught.value)
    assert str(path) in said
    assert message in said
    assert "POST /v1/cases" in said
    assert "4711" not in said


def test_a_deadline_that_has_passed_is_refused() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    refuse_past(None, now)
    refuse_past(now + timedelta(minutes=1), now)
    with pytest.raises(CommandError, match="has passed"):
        refuse_past(now, now)
