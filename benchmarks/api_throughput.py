"""Reviews a second through HTTP, against a bare LangGraph graph with the same saver.

    python benchmarks/api_throughput.py --json runs/bench/api.json

Both run on the same machine, by turns, for several rounds: the bare graph (as many steps as a
review takes, each node passing a small state on), and a real server in a process of its own, with
keys, audit log, ledger, idempotency, versions, explanations, a silent policy and drift on. A review
is: post, run to the clinician's interrupt, decide, record. The student is replayed from a synthetic
evidence table, so that the figure is about the workflow and not about a model.

Three loads. *Saturated*: 20 clients, each posting its next case as soon as the last is recorded,
once waiting by ``Prefer: wait`` and once following the case's event stream. *At work*: 20 clients
that each think between two cases, so that together they ask for ``--load`` of what the saturated
server did; that is what latency is quoted for, since at saturation it is the number of clients over
the rate whatever the server does (the bare graph's own figure is printed beside it). *Alone*: one.
Latency: from sending the POST until the case waits for the clinician.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import operator
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

import httpx
import numpy as np

KEY = "benchmark-key"
OTHER = "benchmark-key-2"
CLIENTS = 20
STEPS_BEFORE_INTERRUPT = 8
"""Of the bare graph: intake, sense, assess, decide, transfer, assess, decide, explain."""
FRESH_S = 2.0
AWAITED = b'"awaiting_clinician"'


class BareState(TypedDict, total=False):
    """A small state with a growing list, as a review might have."""

    n: int
    events: Annotated[list[dict[str, Any]], operator.add]


def _bare_graph() -> Any:
    """Steps that pass a small state on, an interrupt, a last step."""
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import interrupt

    async def step(state: BareState) -> BareState:
        return {"n": state.get("n", 0) + 1, "events": [{"seq": state.get("n", 0)}]}

    async def ask(state: BareState) -> BareState:
        return {"events": [{"answer": interrupt({"kind": "clinician"})}]}

    graph = StateGraph(BareState)
    names = [f"step{i}" for i in range(STEPS_BEFORE_INTERRUPT)]
    for name in names:
        graph.add_node(name, step)
    graph.add_node("ask", ask)
    graph.add_node("record", step)
    for one, two in zip([START, *names, "ask", "record"], [*names, "ask", "record", END]):
        graph.add_edge(one, two)
    return graph


async def bare_reviews(folder: Path, reviews: int) -> tuple[float, list[float]]:
    """A graph of as many steps that does nothing, same saver, same durability, as many at once."""
    from langgraph.types import Command

    from agent.workflow.graph import sqlite_saver

    graph = _bare_graph()
    async with sqlite_saver(folder / "bare.sqlite") as saver:
        compiled = graph.compile(checkpointer=saver)

        async def review(i: int) -> float:
            thread = {"configurable": {"thread_id": str(i)}}
            began_s = time.perf_counter()
            ready_s = 0.0
            for entry in ({"n": 0, "events": []}, Command(resume="accept")):
                async for _ in compiled.astream(
                    entry, thread, stream_mode="updates", durability="sync"
                ):
                    pass
                ready_s = ready_s or time.perf_counter() - began_s
            return ready_s

        gate = asyncio.Semaphore(CLIENTS)

        async def gated(i: int) -> float:
            async with gate:
                return await review(i)

        await review(-1)
        began_s = time.perf_counter()
        ready = await asyncio.gather(*(gated(i) for i in range(reviews)))
        return reviews / (time.perf_counter() - began_s), list(ready)


def toy_server(state: Path, port_file: Path) -> None:
    """The server under test, in its own process."""
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

    keys = tuple(
        ApiKey(name=f"bench-{i}", role="admin", sha256=hash_key(key))
        for i, key in enumerate((KEY, OTHER))
    )
    settings = Settings(
        bundle=state, state=state, policy="always:genomics->pathology", keys=keys,
        shadow=("rule",),
    )  # fmt: skip
    app = create_app(settings, load=kit)
    with listen("127.0.0.1", 0) as listener:
        port_file.write_text(f"{listener.getsockname()[1]}\n")
        config = uvicorn.Config(app, log_config=log_config("WARNING"), timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def running_server(folder: Path) -> Iterator[tuple[str, float]]:
    """Start the server; yields its address and how long it took to become ready."""
    port_file = folder / "port"
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder / "state"), str(port_file)]
    )
    try:
        while True:
            time.sleep(0.02)
            if process.poll() is not None:
                raise SystemExit("the server did not start")
            if not port_file.exists() or not port_file.read_text().strip():
                continue
            url = f"http://127.0.0.1:{port_file.read_text().strip()}"
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                continue
        yield url, time.perf_counter() - began_s
    finally:
        process.terminate()
        process.wait()


class Wire:
    """One kept-alive HTTP/1.1 connection: a load generator must not be what is measured."""

    def __init__(self, url: str) -> None:
        """Remember where; nothing is opened yet."""
        host, _, port = url.removeprefix("http://").partition(":")
        self._host, self._port = host, int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used_s = 0.0

    async def _send(
        self, method: str, path: str, headers: str, body: bytes
    ) -> tuple[int, dict[str, str], asyncio.StreamReader]:
        if time.monotonic() - self._used_s > FRESH_S:
            # The server may be about to hang up.
            self.close()
        self._used_s = time.monotonic()
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        )
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), found, reader

    async def post(self, path: str, body: dict[str, Any], headers: str) -> bytes:
        """Post JSON; the answer's body."""
        status, found, reader = await self._send("POST", path, headers, json.dumps(body).encode())
        content = await reader.readexactly(int(found["content-length"]))
        if status >= 300:
            raise SystemExit(f"{path}: {status} {content[:300]!r}")
        return content

    async def follow(self, case_id: str) -> None:
        """Read a case's event stream until it waits for the clinician, then hang up."""
        other = Wire(f"http://{self._host}:{self._port}")
        _, _, reader = await other._send("GET", f"/v1/cases/{case_id}/events", "", b"")
        while AWAITED not in await reader.readline():
            pass
        other.close()

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def one_review(wire: Wire, body: dict[str, Any], key: str, *, stream: bool) -> float:
    """Post, wait for the clinician's turn, decide; returns seconds from POST to clinician-ready."""
    once = f"Idempotency-Key: p-{key}\r\n" + ("" if stream else "Prefer: wait=30\r\n")
    began_s = time.perf_counter()
    posted = json.loads(await wire.post("/v1/cases", body, once))
    if stream:
        await wire.follow(posted["id"])
    elif posted["status"] != "awaiting_clinician":
        raise SystemExit(f"a case came back as {posted['status']}")
    ready_s = time.perf_counter() - began_s
    decided = await wire.post(
        f"/v1/cases/{posted['id']}/decision",
        {"action": "accept"},
        f"Idempotency-Key: d-{key}\r\n",
    )
    if b'"status":"recorded"' not in decided:
        raise SystemExit(f"a case ended as {json.loads(decided)['status']}")
    return ready_s


async def http_reviews(
    url: str,
    reviews: int,
    clients: int,
    *,
    stream: bool = False,
    per_s: float | None = None,
    part: int = -1,
) -> tuple[float, list[float]]:
    """Reviews a second and latencies at this many clients.

    With ``per_s`` each client rests, for an exponential time, before each case, such that all of
    them together ask for so many reviews a second.
    """
    from agent.workflow.doubles import row_features
    from envs.toy import toy_evidence

    evidence = toy_evidence(n_patients=200, seed=0)
    rows = np.flatnonzero(evidence.present.all(axis=1))
    rng = np.random.default_rng(reviews)
    waiting = iter(range(reviews))
    name = f"{part}-{clients}-{stream}-{per_s or 0:.3f}-"
    latencies: list[float] = []

    async def client() -> None:
        wire = Wire(url)
        for i in waiting:
            if per_s:
                await asyncio.sleep(rng.exponential(clients / per_s))
            body = {"features": row_features(evidence, int(rows[i % len(rows)]))}
            latencies.append(await one_review(wire, body, f"{name}{i}", stream=stream))
        wire.close()

    began_s = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return reviews / (time.perf_counter() - began_s), latencies


def figure(values: list[float], statistic: float, rng: np.random.Generator) -> dict[str, Any]:
    """A percentile in milliseconds with its bootstrap interval."""
    data = 1000.0 * np.array(values)
    draws = rng.choice(data, (1000, len(data)))
    resampled = np.percentile(draws, statistic, axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {
        "value": float(np.percentile(data, statistic)),
        "ci95": [float(low), float(high)],
        "n": len(data),
    }


def both(values: list[float], rng: np.random.Generator) -> dict[str, Any]:
    """Median and 95th percentile, ms."""
    return {"p50": figure(values, 50, rng), "p95": figure(values, 95, rng)}


def interval(values: list[float], rng: np.random.Generator) -> dict[str, Any]:
    """A mean over rounds with its bootstrap interval."""
    data = np.array(values)
    means = rng.choice(data, (2000, len(data))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"value": float(data.mean()), "ci95": [float(low), float(high)], "n": len(data)}


def saturated(url: str, folder: Path, reviews: int, rounds: int) -> dict[str, list[float]]:
    """Bare graph and server by turns, so that a machine that slows down does so for both."""
    found: dict[str, list[float]] = {name: [] for name in ("bare", "waiting", "streaming")}
    for number in range(rounds):
        place = folder / f"round-{number}"
        place.mkdir()
        found["bare"].append(asyncio.run(bare_reviews(place, reviews))[0])
        for name in ("waiting", "streaming"):
            rate, _ = asyncio.run(
                http_reviews(url, reviews, CLIENTS, stream=name == "streaming", part=number)
            )
            found[name].append(rate)
    return found


def measure(reviews: int, rounds: int, load: float, seed: int) -> dict[str, Any]:
    """Run everything."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="greenboard-bench-") as name:
        folder = Path(name)
        with running_server(folder) as (url, start_s):
            asyncio.run(http_reviews(url, 20, 2))
            rates = saturated(url, folder, reviews, rounds)
            _, ready_bare = asyncio.run(bare_reviews(folder, reviews))
            _, ready = asyncio.run(http_reviews(url, reviews, CLIENTS, part=rounds))
            offered = load * float(np.mean(rates["waiting"]))
            _, at_work = asyncio.run(http_reviews(url, 2 * reviews, CLIENTS, per_s=offered))
            alone, ready_alone = asyncio.run(http_reviews(url, reviews // 3, 1, stream=True))
    bare = np.array(rates["bare"])
    share = {n: (np.array(rates[n]) / bare).tolist() for n in ("waiting", "streaming")}
    return {
        "what": "reviews through HTTP against a bare graph; replayed student, synthetic evidence",
        "cores": os.cpu_count(),
        "load_average_1min": os.getloadavg()[0],
        "reviews_a_round": reviews,
        "clients": CLIENTS,
        "reviews_per_s": {name: interval(found, rng) for name, found in rates.items()},
        "share_of_bare": {name: interval(found, rng) for name, found in share.items()},
        "saturated_ready_ms": {"bare": both(ready_bare, rng), "http": both(ready, rng)},
        "at_work": {"offered_per_s": offered, "post_to_ready_ms": both(at_work, rng)},
        "one_client": {"reviews_per_s": alone, "post_to_ready_ms": both(ready_alone, rng)},
        "cold_start_s": start_s,
    }


def main() -> None:
    """Run both and print or write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--reviews", type=int, default=200, help="a round")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--load", type=float, default=0.5, help="share of the saturated rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--serve", nargs=2, type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        toy_server(*given.serve)
        return
    facts = measure(given.reviews, given.rounds, given.load, given.seed)
    print(json.dumps(facts, indent=1))
    if given.json:
        from api.cli.atomic import write_json

        write_json(given.json, facts)


if __name__ == "__main__":
    main()
