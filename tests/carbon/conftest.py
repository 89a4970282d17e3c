"""A local server that answers like a provider, well or badly, one scripted answer after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(kw_only=True)
class Scripted:
    """One answer: status, body, headers, and how slowly the body trickles."""

    body: str = "{}"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    trickle_s: float = 0.0


@dataclass(kw_only=True)
class NesoServer:
    """The address, the script by path (with or without its query), and what was asked for."""

    url: str
    script: dict[str, list[Scripted]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def answers(self, path: str, *answers: dict[str, Any]) -> None:
        self.script[path] = [Scripted(**answer) for answer in answers]

    def take(self, path: str, headers: dict[str, str]) -> Scripted:
        self.asked.append(path)
        self.headers.append(headers)
        waiting = self.script.get(path) or self.script.get(path.partition("?")[0])
        if not waiting:
            return Scripted(status=404, body='{"error":{"code":"404","message":"no such path"}}')
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@pytest.fixture
def neso_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NesoServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = NesoServer(url="")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = state.take(self.path, {k.lower(): v for k, v in self.headers.items()})
            body = answer.body.encode(errors="surrogatepass")
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                for i in range(len(body)) if answer.trickle_s else ():
                    self.wfile.write(body[i : i + 1])
                    self.wfile.flush()
                    time.sleep(answer.trickle_s)
                if not answer.trickle_s:
                    self.wfile.write(body)
            except OSError:
                return  # the client gave up, as it should on a slow body

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()
