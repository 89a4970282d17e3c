"""What api/README.md promises is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from api.settings import read_keys

README = Path(__file__).resolve().parents[2] / "api" / "README.md"


def test_routes_of_the_readme_are_the_servers(shared_server) -> None:
    with shared_server.client(None) as client:
        paths = client.get("/openapi.json").json()["paths"]
    there = {
        (method.upper(), re.sub(r"\{\w+_id\}", "{id}", path))
        for path, item in paths.items()
        for method in item
    }
    text = README.read_text()
    said = {(m, p.rstrip("`,.")) for m, p in re.findall(r"(GET|POST) +(/[\w/{}.-]+)", text)}
    there.add(("GET", "/openapi.json"))
    assert said == there


def test_the_key_file_of_the_readme_is_read(tmp_path: Path) -> None:
    block = re.search(r"```toml\n(.*?)```", README.read_text(), re.S)
    assert block is not None
    file = tmp_path / "keys.toml"
    file.write_text(block.group(1).replace('"..."', f'"{"0" * 64}"'))
    assert tomllib.loads(file.read_text())["key"]
    assert read_keys(file)[0].name == "reviewer-1"
