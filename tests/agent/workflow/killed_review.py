"""A review in a process of its own that a test kills: prints each step once it is durable."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from agent.policies.registry import make_policy
from agent.workflow.doubles import replay_kit, row_features
from agent.workflow.graph import build_graph, sqlite_saver
from agent.workflow.run import follow
from agent.workflow.state import new_case
from envs.toy import toy_evidence

POLICY = "always-everything"


def toy_services() -> Any:
    """The same services in both processes."""
    evidence = toy_evidence(n_patients=80, seed=1)
    kit = replay_kit(evidence, make_policy=make_policy, policy=POLICY)
    row = int(np.flatnonzero(evidence.present.all(axis=1))[0])

    async def prepared(case: str, without: frozenset[str]) -> Any:
        return kit.student.prepare(row_features(evidence, row))

    return kit.services(prepared=prepared, clock=lambda: datetime.now(UTC))


async def review(path: Path) -> None:
    async with sqlite_saver(path) as saver:
        graph = build_graph(toy_services(), saver)
        await follow(
            graph, "c", new_case("c", policy=POLICY), on_steps=lambda _: print("step", flush=True)
        )


if __name__ == "__main__":
    asyncio.run(review(Path(sys.argv[1])))
