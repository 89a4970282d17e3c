"""Other words for an explanation: off by default, never stored, refused when they lie."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from api.errors import SettingsError
from api.other_words import rephraser_of

MODEL = "small-1"


@contextmanager
def language_model(answer: Any) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An endpoint of the shape; ``answer`` makes its text from the prompt's last message."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body)
            text = answer(body["messages"][-1]["content"])
            content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def posted(client: Any, body: Any, until: Any) -> str:
    case_id = str(client.post("/v1/cases", json=body(0)).json()["id"])
    until(client, case_id, "awaiting_clinician")
    return case_id


def test_without_a_model_the_explanation_stands(serve, body, until) -> None:
    with serve() as running, running.client() as client:
        answer = client.post(f"/v1/cases/{posted(client, body, until)}/rephrase")
        assert answer.status_code == 409
        assert answer.json()["type"].endswith(":not-rephrased")


def test_other_words_are_marked_and_stored_nowhere(serve, body, until) -> None:
    with (
        language_model(lambda source: source) as (url, asked),
        serve(rephrase_url=url, rephrase_model=MODEL) as running,
        running.client() as client,
    ):
        case_id = posted(client, body, until)
        before = client.get(f"/v1/cases/{case_id}").json()
        answer = client.post(f"/v1/cases/{case_id}/rephrase")
        assert answer.status_code == 200, answer.text
        assert MODEL in answer.json()["mark"]
        assert "may be wrong" in answer.json()["mark"]
        assert client.get(f"/v1/cases/{case_id}").json() == before
    [prompt] = asked
    for name in body(0)["features"]["clinical"]:
        assert name not in json.dumps(prompt)
    assert case_id not in json.dumps(prompt)


def test_a_number_that_the_explanation_lacks_is_refused(serve, body, until) -> None:
    with (
        language_model(lambda source: source + " The probability is 0.123456.") as (url, _),
        serve(rephrase_url=url, rephrase_model=MODEL) as running,
        running.client() as client,
    ):
        answer = client.post(f"/v1/cases/{posted(client, body, until)}/rephrase")
        assert answer.status_code == 409
        assert "0.123456" not in answer.json()["detail"]


def test_half_a_configuration_and_a_public_address_are_refused(settings) -> None:
    assert rephraser_of(settings) is None
    with pytest.raises(SettingsError, match="both"):
        rephraser_of(settings.model_copy(update={"rephrase_model": MODEL}))
    plain = {"rephrase_url": "http://models.example/v1", "rephrase_model": MODEL}
    with pytest.raises(SettingsError, match="https"):
        rephraser_of(settings.model_copy(update=plain))
