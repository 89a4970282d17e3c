"""A real server in a process of its own on loopback, and a small client for it.

The demo and the benchmarks review their cases through these.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.errors import CommandError

STOP_S = 10.0
START_S = 60.0
REVIEW_S = 60.0
DEFERRED = "deferred"
ENDS = (DEFERRED, "failed", "recorded", "sent_back")


@contextmanager
def greenboard_process(
    arguments: Sequence[str], log: Any, *, errors: Any = subprocess.STDOUT, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A greenboard command in a process of its own, stopped by its id however the block ends.

    Its output goes to ``log``; so do its errors, unless ``errors`` says otherwise.
    """
    process = subprocess.Popen(  # noqa: S603  # our own command, no shell
        [sys.executable, "-m", "api.cli", *arguments],
        stdout=log,
        stderr=errors,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_server(process: subprocess.Popen[bytes], port_file: Path, log: Path) -> str:
    import requests

    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        time.sleep(0.1)
        if not port_file.exists() or not port_file.read_text().strip():
            continue
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        try:
            if requests.get(f"{url}/readyz", timeout=5).status_code == 200:
                return url
        except requests.RequestException:
            continue
    raise CommandError(f"The server did not become ready; see {log}.")


@contextmanager
def local_server(
    arguments: Sequence[str], log: Path, *, reviewer: str
) -> Iterator[tuple[str, str]]:
    """``greenboard serve`` with these arguments on a free port, stopped when the block ends.

    Args:
        arguments: options of ``greenboard serve``; the port is added.
        log: where its output goes.
        reviewer: name that the one key stands for.

    Yields:
        The server's URL and a key with the role of reviewer.

    Raises:
        CommandError: if the server does not become ready.
    """
    from api.auth import new_key

    key, kept = new_key(reviewer, "reviewer")
    port_file = log.with_suffix(".port")
    port_file.unlink(missing_ok=True)
    words = ("serve", *arguments, "--port", "0", "--port-file", str(port_file))
    keys = f"{kept.name}:{kept.role}:{kept.sha256}"
    try:
        with (
            log.open("wb") as file,
            greenboard_process(words, file, GREENBOARD_KEYS=keys) as process,
        ):
            yield _await_server(process, port_file, log), key
    finally:
        port_file.unlink(missing_ok=True)


class ReviewClient:
    """The few calls that it takes to review a case."""

    def __init__(self, url: str, key: str) -> None:
        """Remember where and as whom."""
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST JSON."""
        import requests

        answer = requests.post(self._url + path, json=body, headers=self._headers, timeout=REVIEW_S)
        return _checked(answer)

    def get(self, path: str) -> dict[str, Any]:
        """GET JSON."""
        import requests

        return _checked(requests.get(self._url + path, headers=self._headers, timeout=REVIEW_S))

    def text(self, path: str) -> str:
        """GET text of any kind."""
        import requests

        answer = requests.get(self._url + path, headers=self._headers, timeout=REVIEW_S)
        if answer.status_code >= 400:
            _checked(answer)
        answer.encoding = "utf-8"
        return str(answer.text)

    def follow(self, case_id: str, *, until: str, wake: bool = False) -> list[dict[str, Any]]:
        """Read a case's event stream until it says that the case is ``until``.

        Args:
            case_id: the case.
            until: the status to wait for.
            wake: wake the case if the agent puts it off, instead of waiting for its hour.

        Raises:
            CommandError: if the case comes to rest elsewhere or the wait gets too long.
        """
        import requests

        steps: list[dict[str, Any]] = []
        status, deadline_s = "unknown", time.monotonic() + REVIEW_S
        path = f"{self._url}/v1/cases/{case_id}/events"
        with requests.get(path, headers=self._headers, stream=True, timeout=REVIEW_S) as answer:
            # The server's pings are lines too, so a silent case still meets the deadline.
            for line in answer.iter_lines(decode_unicode=True):
                data = _event(line)
                if "seq" in data:
                    steps.append(data)
                status = data.get("status", status)
                if data.get("status") == DEFERRED and wake and until != DEFERRED:
                    self.post(f"/v1/cases/{case_id}/wake", {})
                elif status == until:
                    return steps
                elif data.get("status") in ENDS or time.monotonic() > deadline_s:
                    break
        raise CommandError(
            f"The case did not become {until}: it is {status} after {len(steps)} steps."
        )


def _event(line: str) -> dict[str, Any]:
    """The data of one line of a server-sent event; empty for pings, names and ids."""
    if not line.startswith("data: "):
        return {}
    data: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return data


def _checked(answer: Any) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    if answer.status_code >= 400:
        raise CommandError(f"The server refused: {body.get('title')}: {body.get('detail')}")
    return body
