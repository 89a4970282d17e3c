"""``/openapi.json`` keeps the rules of OpenAPI 3.1, and its examples work when they are sent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from api.openapi import recorded
from api.problems import MEDIA_TYPE

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
TYPES = {"null", "boolean", "object", "array", "number", "integer", "string"}
PLACES = {"path", "query", "header", "cookie"}
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BRANCHES = ("anyOf", "oneOf", "allOf", "prefixItems")


@pytest.fixture(scope="module")
def schema(shared_client: httpx.Client) -> dict[str, Any]:
    return shared_client.get("/openapi.json").json()


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in schema["paths"].items():
        assert set(item) <= METHODS | {"summary", "description", "parameters", "servers"}
        for method in METHODS & set(item):
            yield path, method, item[method]


def resolve(schema: dict[str, Any], reference: str) -> Any:
    assert reference.startswith("#/"), reference
    found: Any = schema
    for part in reference[2:].split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def inner_schemas(node: dict[str, Any]) -> Iterator[Any]:
    for key in BRANCHES:
        yield from node.get(key, [])
    for key in ("items", "additionalProperties", "not", "contains", "propertyNames"):
        if key in node:
            yield node[key]
    yield from node.get("properties", {}).values()


def check_numbers(node: dict[str, Any]) -> None:
    for key in set(NUMBERS) & set(node):
        assert isinstance(node[key], int | float), node
        assert not isinstance(node[key], bool), node
    for key in set(COUNTS) & set(node):
        assert isinstance(node[key], int), node
        assert node[key] >= 0, node


def check_schema(node: Any, whole: dict[str, Any]) -> None:
    """JSON Schema 2020-12, as far as it is used here."""
    if isinstance(node, bool):
        return
    assert not set(node) & {"nullable", "example", "definitions"}, node  # of OpenAPI 3.0
    references = [node["$ref"]] if "$ref" in node else []
    references += node.get("discriminator", {}).get("mapping", {}).values()
    assert all(isinstance(resolve(whole, reference), dict) for reference in references)
    kinds = node.get("type", [])
    assert set([kinds] if isinstance(kinds, str) else kinds) <= TYPES, node
    check_numbers(node)
    re.compile(node.get("pattern", ""))
    assert isinstance(node.get("examples", []), list), node
    assert all(node.get(key, [0]) for key in ("enum", *BRANCHES)), node
    required = node.get("required", [])
    assert len(set(required)) == len(required), node
    if node.get("additionalProperties") is False:
        assert set(required) <= set(node.get("properties", {})), node
    for inner in inner_schemas(node):
        check_schema(inner, whole)


def check_content(content: dict[str, Any], whole: dict[str, Any]) -> None:
    for kind, media in content.items():
        assert re.fullmatch(r"[\w.+*-]+/[\w.+*-]+", kind), kind
        assert not {"example", "examples"} <= set(media)
        check_schema(media.get("schema", {}), whole)
        for example in media.get("examples", {}).values():
            assert set(example) & {"value", "externalValue", "$ref"}


def check_parameters(path: str, found: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    assert max(Counter((p["name"], p["in"]) for p in found).values(), default=1) == 1
    for parameter in found:
        assert parameter["in"] in PLACES
        assert ("schema" in parameter) != ("content" in parameter)
        assert parameter["in"] != "path" or parameter["required"] is True
        check_schema(parameter.get("schema", {}), whole)
    in_path = {p["name"] for p in found if p["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", path)), path


def test_it_is_openapi_3_1(schema: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d+", schema["openapi"])
    assert schema["info"]["title"]
    assert schema["info"]["version"]
    ids = Counter(operation["operationId"] for _, _, operation in operations(schema))
    assert max(ids.values()) == 1
    shapes = Counter(re.sub(r"{\w+}", "{}", path) for path in schema["paths"])
    assert max(shapes.values()) == 1
    for kind, parts in schema["components"].items():
        assert all(re.fullmatch(r"[a-zA-Z0-9._-]+", name) for name in parts), kind
    for part in schema["components"]["schemas"].values():
        check_schema(part, schema)
    for scheme in schema["components"]["securitySchemes"].values():
        needs = {"http": {"scheme"}, "apiKey": {"name", "in"}}[scheme["type"]]
        assert needs <= set(scheme)


def test_every_operation_is_whole(schema: dict[str, Any]) -> None:
    for path, method, operation in operations(schema):
        assert path.startswith("/")
        assert operation["summary"]
        check_parameters(path, operation.get("parameters", []), schema)
        if "requestBody" in operation:
            assert method not in ("get", "head", "delete")
            assert operation["requestBody"]["content"]
            check_content(operation["requestBody"]["content"], schema)
        assert operation["responses"]
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"default|[1-5](\d\d|XX)", status)
            assert isinstance(response["description"], str)
            assert response["description"]
            check_content(response.get("content", {}), schema)
            assert status != "204" or not response.get("content")
        for requirement in operation.get("security", []):
            assert set(requirement) <= set(schema["components"]["securitySchemes"])


def test_every_example_of_a_request_works(serve, body, until) -> None:
    with serve() as running, running.client() as client:
        schema = client.get("/openapi.json").json()
        sent = 0
        for example in schema["components"]["schemas"]["CaseRequest"]["examples"]:
            answer = client.post("/v1/cases", json=example)
            assert answer.status_code == 202, answer.text
            assert until(client, answer.json()["id"], "awaiting_clinician")["caution"] is not None
            sent += 1
        path = schema["paths"]["/v1/cases/{case_id}/decision"]["post"]
        for example in path["requestBody"]["content"]["application/json"]["examples"].values():
            case = client.post("/v1/cases", json=body(sent)).json()["id"]
            until(client, case, "awaiting_clinician")
            answer = client.post(f"/v1/cases/{case}/decision", json=example["value"])
            assert answer.status_code == 201, answer.text
            sent += 1
        assert sent == 5


def test_schemas_of_requests_have_examples_only_where_they_are_tried(
    schema: dict[str, Any],
) -> None:
    having = {
        reference.rsplit("/", 1)[1]
        for _, _, operation in operations(schema)
        for media in operation.get("requestBody", {}).get("content", {}).values()
        for reference in re.findall(r"'\$ref': '([^']+)'", str(media["schema"]))
    }
    parts = schema["components"]["schemas"]
    assert {name for name in having if "examples" in str(parts[name])} == {"CaseRequest"}


OPEN = {(path, "get") for path in ("/healthz", "/readyz", "/cds-services", "/v1/fhir/metadata")}
"""Nobody has to say who they are."""
OTHERS_RULES = "/cds-services"
"""The standard says how these repeat and who may call them; there is no key of ours in it."""


def test_every_operation_says_what_it_is_and_what_may_go_wrong(schema: dict[str, Any]) -> None:
    for path, method, operation in operations(schema):
        place = (path, method)
        assert operation["summary"], place
        assert len(operation["description"]) > 20, place
        assert operation["tags"], place
        problems = {
            status
            for status, response in operation["responses"].items()
            if MEDIA_TYPE in response.get("content", {})
        }
        if place not in OPEN:
            assert {"401", "500"} <= problems, place
        if "requestBody" in operation:
            assert {"400", "422"} <= problems, place
        if "{" in path:
            assert "404" in problems, place
        if method == "post" and not path.startswith(OTHERS_RULES):
            named = {parameter["name"] for parameter in operation["parameters"]}
            assert "Idempotency-Key" in named, place
            # Where asking again only asks again, no key can be in the way.
            assert "422" in problems, place


def examples_of(media: dict[str, Any]) -> list[Any]:
    found = [example["value"] for example in media.get("examples", {}).values()]
    return [*found, media["example"]] if "example" in media else found


def check_examples(media: dict[str, Any], whole: dict[str, Any], place: Any) -> int:
    """How many examples there are; all of them fit their schema."""
    known = {**media.get("schema", {}), "components": whole["components"]}
    validator = jsonschema_rs.Draft202012Validator(known)
    found = examples_of(media)
    for example in found:
        errors = [f"{list(e.instance_path)}: {e.message}" for e in validator.iter_errors(example)]
        assert not errors, (place, errors[:3])
    return len(found)


def test_every_operation_has_examples_that_fit_their_schemas(schema: dict[str, Any]) -> None:
    for path, method, operation in operations(schema):
        for parameter in operation.get("parameters", []):
            check_examples(parameter, schema, (path, method, parameter["name"]))
            if parameter["in"] == "path":
                assert "example" in parameter, (path, parameter["name"])
        for media in operation.get("requestBody", {}).get("content", {}).values():
            named = media["schema"].get("$ref", "").rsplit("/", 1)[-1]
            count = check_examples(media, schema, (path, method))
            assert count or "examples" in schema["components"]["schemas"][named], (path, method)
        for status, response in operation["responses"].items():
            content = response.get("content", {})
            count = sum(check_examples(media, schema, (path, status)) for media in content.values())
            assert count or not content, (path, method, status)


def test_the_examples_of_schemas_fit_them(schema: dict[str, Any]) -> None:
    for name, part in schema["components"]["schemas"].items():
        known = {"$ref": f"#/components/schemas/{name}", "components": schema["components"]}
        validator = jsonschema_rs.Draft202012Validator(known)
        for example in part.get("examples", []):
            assert not [error.message for error in validator.iter_errors(example)], name


def test_no_recorded_example_is_of_an_operation_that_is_gone(schema: dict[str, Any]) -> None:
    there = {f"{method.upper()} {path}" for path, method, _ in operations(schema)}
    assert set(recorded()) <= there


def test_the_deadline_of_the_example_moves_with_the_clock(serve) -> None:
    from datetime import datetime, timedelta

    with serve() as running, running.client() as client:
        running.clock.ahead = timedelta(days=400)
        example = client.get("/openapi.json").json()["components"]["schemas"]["CaseRequest"]
        deadline = datetime.fromisoformat(example["examples"][0]["deadline"])
        assert deadline > running.clock()
