"""``greenboard shadow``: from a log and from a server's store."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from api.cli.main import app
from api.errors import CommandError
from api.store.database import Database
from api.store.tables import cases, shadow

RUNNER = CliRunner()
AT = datetime(2026, 1, 1, tzinfo=UTC)


def entry(case: str, own: str = "defer") -> dict[str, Any]:
    return {
        "case_id": case, "seq": 3, "policy": "price", "acting": "planner", "action": own,
        "data": {"acting_action": "finalise", "g_co2e": 5.0},
    }  # fmt: skip


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "shadows.jsonl"
    path.write_text("\n".join(json.dumps(entry(f"c{i}")) for i in range(3)) + "\n")
    return path


def test_a_log_as_words_json_and_files(log: Path, tmp_path: Path) -> None:
    told = RUNNER.invoke(app, ["shadow", str(log)])
    assert told.exit_code == 0
    assert "price beside planner: the same action at 0 %" in told.output
    assert "3 times planner did finalise, price would have defer" in told.output
    out = tmp_path / "out"
    figures = RUNNER.invoke(app, ["shadow", str(log), "--json", "--out", str(out)])
    data = json.loads(figures.stdout)
    assert data["pairs"][0]["step_g_co2e_difference"]["value"] == 5.0
    assert json.loads((out / "shadow.json").read_text()) == data
    assert "Research use only" in (out / "shadow.html").read_text()


def test_a_store_is_read_and_left_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()

    async def fill() -> None:
        database = Database(f"sqlite:///{state / 'cases.sqlite'}")
        await database.setup()

        def rows(connection: Any) -> None:
            needed = {
                column.name: AT if "at" in column.name.split("_") else 0
                for column in cases.c
                if not column.nullable and column.default is None and not column.server_default
            }
            texts = {c.name: "x" for c in cases.c if c.name in needed and c.type.python_type is str}
            connection.execute(insert(cases), [needed | texts | {"id": "a"}])
            connection.execute(insert(shadow), [entry("a")])

        await database.write(rows)
        await database.close()

    asyncio.run(fill())
    before = (state / "cases.sqlite").read_bytes()
    told = RUNNER.invoke(app, ["shadow", "--state", str(state), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["steps"] == 1
    assert (state / "cases.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of the two"),
        (["x.jsonl", "--state", "y"], "one of the two"),
        (["--state", "nowhere"], "holds no cases.sqlite"),
    ],
)
def test_bad_input_is_said(words: list[str], message: str) -> None:
    result = RUNNER.invoke(app, ["shadow", *words])
    assert isinstance(result.exception, CommandError)
    assert message in str(result.exception)


def test_a_broken_line_is_named_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "shadows.jsonl"
    path.write_text(json.dumps(entry("a")) + "\nsecret")
    result = RUNNER.invoke(app, ["shadow", str(path)])
    assert isinstance(result.exception, CommandError)
    assert "Line 2" in str(result.exception)
    assert "secret" not in str(result.exception)
