"""``/openapi.json``: what FastAPI makes of the routes, with examples of what is sent and answered.

The examples of answers were recorded from a running server over doubles
(``tests/api/record_examples.py``); the tests hold them against their schemas.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from api.problem_schema import Problem

EXAMPLES = "openapi_examples.json"
METHODS = ("get", "put", "post", "delete", "patch")


def recorded() -> dict[str, Any]:
    """Examples by operation: ``{"POST /v1/cases": {"parameters", "request", "response"}}``."""
    text = files("api").joinpath(EXAMPLES).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def complete(
    schema: dict[str, Any], examples: Mapping[str, Any], bodies: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """Add the problem's schema and the examples; changes and returns ``schema``.

    Args:
        schema: as FastAPI makes it.
        examples: recorded ones, by operation.
        bodies: cases that the running server takes as they stand; None while none runs.
    """
    schemas = schema["components"]["schemas"]
    schemas.setdefault("Problem", Problem.model_json_schema())
    if bodies is not None:
        schemas["CaseRequest"]["examples"] = bodies
    _even_tuples(schema["components"])
    for name, operation in operations(schema):
        known = examples.get(name, {})
        _parameters(operation, known.get("parameters", {}))
        _request(operation, known)
        _answers(operation, known)
    return schema


def _even_tuples(node: Any) -> None:
    """A pair of numbers is a list of two numbers: more programs understand that."""
    if isinstance(node, dict):
        kinds = node.get("prefixItems")
        if isinstance(kinds, list) and all(kind == kinds[0] for kind in kinds):
            node["items"] = node.pop("prefixItems")[0]
        for inner in node.values():
            _even_tuples(inner)
    elif isinstance(node, list):
        for inner in node:
            _even_tuples(inner)


def operations(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation with its name, such as ``GET /v1/cases``."""
    for path, item in schema["paths"].items():
        for method in METHODS:
            if method in item:
                yield f"{method.upper()} {path}", item[method]


def _parameters(operation: dict[str, Any], known: Mapping[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in known:
            parameter["example"] = known[parameter["name"]]


def _request(operation: dict[str, Any], known: Mapping[str, Any]) -> None:
    for media in operation.get("requestBody", {}).get("content", {}).values():
        if "request" in known and not {"example", "examples"} & set(media):
            media["example"] = known["request"]


STREAM = "text/event-stream"


def _answers(operation: dict[str, Any], known: Mapping[str, Any]) -> None:
    """The example of an answer stands with every 2xx that has the answer's schema."""
    for status, response in operation["responses"].items():
        for kind, media in response.get("content", {}).items():
            if kind == STREAM:
                # OpenAPI 3.1 has no word for what each event of a stream is.
                media.pop("schema", None)
            fits = kind == known.get("media_type", "application/json") and status[0] == "2"
            if fits and "response" in known and not {"example", "examples"} & set(media):
                media["example"] = known["response"]
