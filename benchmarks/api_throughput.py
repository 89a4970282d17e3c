"""Reviews a second through HTTP, against a bare LangGraph graph with the same saver.

    python benchmarks/api_throughput.py --json runs/bench/api.json

Both run in this process tree on the same machine: first the bare graph (as many steps as a review
takes, each node passing a small state on), then a real server in a process of its own, with keys,
audit log, ledger, idempotency and event streams on. A review is: post, run to the clinician's
interrupt, decide, record. The student is replayed from a synthetic evidence table, so that the
figure is about the workflow and not about a model. Latency: from sending the POST until the event
stream says that the case waits for the clinician, at 20 clients at once.
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
CLIENTS = 20
STEPS_BEFORE_INTERRUPT = 8
"""Of the bare graph: intake, sense, assess, decide, transfer, assess, decide, explain."""


class BareState(TypedDict, total=False):
    """A small state with a growing list, as the review has."""

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


async def bare_reviews_per_s(folder: Path, reviews: int) -> float:
    """A graph of as many steps that does nothing, same saver, same durability."""
    from langgraph.types import Command

    from agent.workflow.graph import sqlite_saver

    graph = _bare_graph()
    async with sqlite_saver(folder / "bare.sqlite") as saver:
        compiled = graph.compile(checkpointer=saver)

        async def review(i: int) -> None:
            thread = {"configurable": {"thread_id": str(i)}}
            for entry in ({"n": 0, "events": []}, Command(resume="accept")):
                async for _ in compiled.astream(
                    entry, thread, stream_mode="updates", durability="sync"
                ):
                    pass

        gate = asyncio.Semaphore(CLIENTS)

        async def gated(i: int) -> None:
            async with gate:
                await review(i)

        await review(-1)
        began_s = time.perf_counter()
        await asyncio.gather(*(gated(i) for i in range(reviews)))
        return reviews / (time.perf_counter() - began_s)


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

    settings = Settings(
        bundle=state, state=state, policy="always:genomics->pathology",
        keys=(ApiKey(name="bench", role="admin", sha256=hash_key(KEY)),),
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


async def one_review(client: httpx.AsyncClient, body: dict[str, Any], key: str) -> float:
    """Post, follow to the clinician, decide; returns seconds from POST to clinician-ready."""
    began_s = time.perf_counter()
    posted = await client.post("/v1/cases", json=body, headers={"Idempotency-Key": f"p-{key}"})
    posted.raise_for_status()
    case_id = posted.json()["id"]
    async with client.stream("GET", f"/v1/cases/{case_id}/events") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: ") and '"awaiting_clinician"' in line:
                break
    ready_s = time.perf_counter() - began_s
    decided = await client.post(
        f"/v1/cases/{case_id}/decision",
        json={"action": "accept"},
        headers={"Idempotency-Key": f"d-{key}"},
    )
    decided.raise_for_status()
    if decided.json()["status"] != "recorded":
        raise SystemExit(f"a case ended as {decided.json()['status']}")
    return ready_s


async def http_reviews(url: str, reviews: int, clients: int) -> tuple[float, list[float]]:
    """Reviews a second and latencies at this many clients."""
    from agent.workflow.doubles import row_features
    from envs.toy import toy_evidence

    evidence = toy_evidence(n_patients=200, seed=0)
    rows = np.flatnonzero(evidence.present.all(axis=1))
    headers = {"Authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=2 * clients)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=60
    ) as client:
        gate = asyncio.Semaphore(clients)

        async def gated(i: int) -> float:
            async with gate:
                body = {"features": row_features(evidence, int(rows[i % len(rows)]))}
                return await one_review(client, body, f"{clients}-{i}")

        await gated(-1)
        began_s = time.perf_counter()
        latencies = await asyncio.gather(*(gated(i) for i in range(reviews)))
        return reviews / (time.perf_counter() - began_s), list(latencies)


def figure(values: list[float], statistic: float, rng: np.random.Generator) -> dict[str, Any]:
    """A percentile with its bootstrap interval."""
    data = np.array(values)
    draws = rng.choice(data, (1000, len(data)))
    resampled = np.percentile(draws, statistic, axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {
        "value": float(np.percentile(data, statistic)),
        "ci95": [float(low), float(high)],
        "n": len(data),
    }


def main() -> None:
    """Run both and print or write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--reviews", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--serve", nargs=2, type=Path, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        toy_server(*given.serve)
        return
    with tempfile.TemporaryDirectory(prefix="greenboard-bench-") as name:
        folder = Path(name)
        before = asyncio.run(bare_reviews_per_s(folder, given.reviews))
        with running_server(folder) as (url, start_s):
            rate, ready = asyncio.run(http_reviews(url, given.reviews, CLIENTS))
            alone, ready_alone = asyncio.run(http_reviews(url, given.reviews // 5, 1))
        (folder / "bare.sqlite").unlink()
        after = asyncio.run(bare_reviews_per_s(folder, given.reviews))
    bare = (before + after) / 2
    rng = np.random.default_rng(given.seed)
    milliseconds = [1000 * s for s in ready]
    facts = {
        "what": "reviews through HTTP against a bare graph; replayed student, synthetic evidence",
        "cores": os.cpu_count(),
        "load_average_1min": os.getloadavg()[0],
        "reviews": given.reviews,
        "clients": CLIENTS,
        "bare_reviews_per_s": {"value": bare, "runs": [before, after]},
        "http_reviews_per_s": {"value": rate, "n": given.reviews},
        "share_of_bare": {"value": rate / bare},
        "post_to_ready_ms": {
            "p50": figure(milliseconds, 50, rng), "p95": figure(milliseconds, 95, rng),
        },
        "one_client": {
            "reviews_per_s": alone,
            "post_to_ready_ms_p50": figure([1000 * s for s in ready_alone], 50, rng),
        },
        "cold_start_s": start_s,
    }  # fmt: skip
    text = json.dumps(facts, indent=1)
    print(text)
    if given.json:
        from api.cli.atomic import write_json

        write_json(given.json, facts)


if __name__ == "__main__":
    main()
