"""How long a CDS hook takes, from sending the call to having its cards, at 50 concurrent calls.

    python benchmarks/cds_hooks.py --json runs/bench/cds.json

A real server in a process of its own answers over HTTP with everything on: each call carries a
fresh ES384 or RS384 token whose signature, times and number are checked, and each card shown is
written down. Four of five calls find a case, the fifth is a patient without one. Calls are sent
without pause over 50 kept connections, by a client that does next to nothing else. The standard
asks for answers within 500 ms. With ``--reviews`` cases are posted and reviewed at the same time.
The student is replayed from a synthetic evidence table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

KEY = "benchmark-key"
PUBLIC, ISS, FHIR = (
    "https://cds.example.org",
    "https://ehr.example.org",
    "https://ehr.example.org/fhir",
)
LIMIT_MS = 500.0


def serve(folder: Path) -> None:
    """The server under test."""
    import uvicorn

    from agent.policies.registry import make_policy
    from agent.workflow.doubles import replay_kit
    from agent.workflow.kit import ReviewKit
    from api.app import create_app
    from api.auth import ApiKey, hash_key
    from api.listen import listen
    from api.logs import log_config
    from api.settings import Settings
    from envs.toy import toy_evidence

    evidence = toy_evidence(n_patients=200, seed=0)

    def kit(settings: Settings) -> ReviewKit:
        return replay_kit(evidence, make_policy=make_policy, policy=settings.policy)

    settings = Settings(
        bundle=folder, state=folder / "state", policy="always:genomics->pathology",
        keys=(ApiKey(name="bench", role="admin", sha256=hash_key(KEY)),),
        cds_trust=folder / "trust.toml", public_url=PUBLIC,
    )  # fmt: skip
    app = create_app(settings, load=kit)
    with listen("127.0.0.1", 0) as listener:
        (folder / "port").write_text(f"{listener.getsockname()[1]}\n")
        config = uvicorn.Config(app, log_config=log_config("WARNING"), timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start the server; yields its address."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", str(folder)])
    port = folder / "port"
    try:
        while True:
            time.sleep(0.05)
            if process.poll() is not None:
                raise SystemExit("the server did not start")
            if not port.exists() or not port.read_text().strip():
                continue
            url = f"http://127.0.0.1:{port.read_text().strip()}"
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                continue
        yield url
    finally:
        process.terminate()
        process.wait()


def patients(folder: Path, url: str, count: int) -> None:
    """Reviewed cases, each of a patient of the system."""
    from agent.workflow.doubles import row_features
    from api.client import Client
    from api.subject import Subjects
    from envs.toy import toy_evidence

    evidence = toy_evidence(n_patients=200, seed=0)
    with Client(url, KEY) as client:
        ids = [client.review(row_features(evidence, i % 200)).id for i in range(count)]
    subjects = Subjects.open(folder / "state")
    with closing(sqlite3.connect(folder / "state" / "cases.sqlite", timeout=10)) as store:
        for i, case_id in enumerate(ids):
            known = (subjects.of(FHIR, f"patient-{i}"), case_id)
            store.execute("UPDATE cases SET subject = ? WHERE id = ?", known)
        store.commit()


def calls(count: int, known: int) -> tuple[Path, list[tuple[dict[str, str], dict[str, Any]]]]:
    """A folder with the trust file, and signed calls: signing is the clients' work, not timed."""
    from api.cds.doubles import Signer, claims, hook, service_address, write_trust

    folder = Path(tempfile.mkdtemp(prefix="greenboard-cds-"))
    signers = [Signer.make("ES384", "e"), Signer.make("RS384", "r")]
    write_trust(folder, *signers, iss=ISS, fhir_server=FHIR)
    nothing = {"patient": None, "conditions": None, "observations": None}
    made = []
    for i in range(count):
        said = claims(ISS, service_address(PUBLIC), datetime.now(UTC))
        token = signers[i % 2].token(said)
        patient = f"patient-{i % known}" if i % 5 else f"nobody-{i}"
        made.append(({"Authorization": f"Bearer {token}"}, hook(patient, FHIR, prefetch=nothing)))
    return folder, made


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[float, int]:
    """Milliseconds to the whole answer to prepared bytes, and how many cards it has.

    A full HTTP client would cost more than the server, and its time would count as the server's.
    """
    began_s = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    body = await reader.readexactly(length)
    took_ms = 1000 * (time.perf_counter() - began_s)
    if not head.startswith(b"HTTP/1.1 200"):
        raise SystemExit(f"a call was answered {head[:40]!r}: {body[:200]!r}")
    return took_ms, len(json.loads(body)["cards"])


def prepared(url: str, headers: dict[str, str], body: dict[str, Any]) -> bytes:
    """A call as it goes over the wire."""
    request = httpx.Request("POST", url, json=body, headers=headers)
    lines = [
        f"POST {request.url.path} HTTP/1.1",
        *(f"{k}: {v}" for k, v in request.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + request.read()


async def storm(
    url: str, sent: list[tuple[dict[str, str], dict[str, Any]]], concurrent: int
) -> tuple[list[float], int]:
    """Milliseconds of each call, and how many cards came; the first twentieth warms up."""
    from api.cds.doubles import service_address

    requests = [prepared(service_address(url), *call) for call in sent]
    waiting, times_ms, cards = iter(requests), [], 0
    host, port = url.removeprefix("http://").split(":")

    async def client() -> None:
        nonlocal cards
        reader, writer = await asyncio.open_connection(host, int(port))
        for request in waiting:
            took_ms, found = await ask(reader, writer, request)
            times_ms.append(took_ms)
            cards += found
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client() for _ in range(concurrent)))
    return times_ms[len(sent) // 20 :], cards


async def reviews(url: str, stop: asyncio.Event) -> int:
    """Post cases for as long as the storm lasts, two at a time."""
    from agent.workflow.doubles import row_features
    from api.client import AsyncClient
    from envs.toy import toy_evidence

    evidence, done = toy_evidence(n_patients=200, seed=0), 0
    async with AsyncClient(url, KEY) as client:

        async def post() -> None:
            nonlocal done
            while not stop.is_set():
                await client.review(row_features(evidence, done % 200))
                done += 1

        await asyncio.gather(post(), post())
    return done


async def both(
    url: str, sent: list[Any], concurrent: int, beside: bool
) -> tuple[list[float], int, int]:
    """The storm, with or without reviews beside it."""
    if not beside:
        return *await storm(url, sent, concurrent), 0
    stop = asyncio.Event()
    others = asyncio.create_task(reviews(url, stop))
    times_ms, cards = await storm(url, sent, concurrent)
    stop.set()
    return times_ms, cards, await others


def figure(values: list[float], percentile: float, rng: np.random.Generator) -> dict[str, Any]:
    """A percentile with its bootstrap interval."""
    data = np.array(values)
    draws = np.percentile(rng.choice(data, (1000, len(data))), percentile, axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    value = float(np.percentile(data, percentile))
    return {"value": value, "ci95": [float(low), float(high)], "n": len(data)}


def main() -> None:
    """Run it and print or write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--concurrent", type=int, default=50)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--reviews", action="store_true", help="post and review cases beside it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--serve", type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    folder, sent = calls(given.calls, given.patients)
    with running(folder) as url:
        patients(folder, url, given.patients)
        began_s = time.perf_counter()
        times_ms, cards, posted = asyncio.run(both(url, sent, given.concurrent, given.reviews))
        took_s = time.perf_counter() - began_s
    rng = np.random.default_rng(given.seed)
    p99 = figure(times_ms, 99, rng)
    facts = {
        "what": "CDS patient-view hooks over HTTP; replayed student, synthetic evidence",
        "cores": os.cpu_count(),
        "load_average_1min": os.getloadavg()[0],
        "concurrent": given.concurrent,
        "calls_per_s": given.calls / took_s,
        "cards": cards,
        "reviews_beside": posted,
        "hook_ms": {"p50": figure(times_ms, 50, rng), "p95": figure(times_ms, 95, rng), "p99": p99},
        "slowest_ms": max(times_ms),
        "limit_ms": LIMIT_MS,
        "kept": p99["ci95"][1] <= LIMIT_MS,
    }
    print(json.dumps(facts, indent=1))
    if given.json:
        from api.cli.atomic import write_json

        write_json(given.json, facts)


if __name__ == "__main__":
    main()
