"""Steps a second of the review session: native batch, SB3 adapter, and SyncVectorEnv of singles.

    python benchmarks/env_speed.py --out runs/env_speed.json
    python benchmarks/env_speed.py --evidence BUNDLE/evidence.npz --num-envs 256 1024

A step is one environment's step with its observation, mask, reward and info. Actions are random
among the open ones and drawn outside the timed part; resets are inside it. Timed in rounds; the
interval is over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import envs  # noqa: F401  (registers the ids)
from distill.evidence import EvidenceTable
from envs.sb3 import Sb3VecEnv
from envs.toy import toy_evidence

ENV_ID = "greenboard/CaseReviewSequential-v1"
ROUNDS = 7


def open_action(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """A random open action in each row."""
    return (rng.random(mask.shape, dtype=np.float32) * mask).argmax(axis=1)


def rounds_per_s(
    step: Callable[[np.ndarray], Any], mask: Callable[[], np.ndarray], seconds: float
) -> list[float]:
    """Batched steps a second in each of the rounds, actions drawn outside the clock."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(ROUNDS + 1):
        spent, steps = 0.0, 0
        while spent < seconds / ROUNDS:
            actions = open_action(rng, mask())
            begun = time.perf_counter()
            step(actions)
            spent += time.perf_counter() - begun
            steps += 1
        rates.append(steps / spent)
    return rates[1:]  # the first round warms up


def native(evidence: EvidenceTable, num_envs: int, seconds: float) -> list[float]:
    """The native vector environment."""
    env: Any = gymnasium.make_vec(
        ENV_ID, num_envs=num_envs, vectorization_mode="vector_entry_point", evidence=evidence
    )
    env.reset(seed=0)
    return rounds_per_s(env.step, env.action_masks, seconds)


def sync(evidence: EvidenceTable, num_envs: int, seconds: float) -> list[float]:
    """Gymnasium's loop over single environments."""
    env: Any = gymnasium.make_vec(
        ENV_ID, num_envs=num_envs, vectorization_mode="sync", evidence=evidence
    )
    env.reset(seed=0)
    return rounds_per_s(
        env.step, lambda: np.stack([e.unwrapped.action_masks() for e in env.envs]), seconds
    )


def sb3(evidence: EvidenceTable, num_envs: int, seconds: float) -> list[float]:
    """The Stable-Baselines3 adapter."""
    env = Sb3VecEnv(num_envs, evidence=evidence)
    env.reset()
    return rounds_per_s(env.step, env.action_masks, seconds)


def figure(rates: list[float]) -> dict[str, Any]:
    """Mean over rounds with a normal interval."""
    mean, half = float(np.mean(rates)), 1.96 * float(np.std(rates, ddof=1)) / len(rates) ** 0.5
    return {"value": mean, "ci95": [mean - half, mean + half], "n": len(rates)}


def measure(evidence: EvidenceTable, num_envs: int, seconds: float) -> dict[str, Any]:
    """Environment steps a second of each kind at one batch size, and the ratio."""
    rates = {
        kind.__name__: [num_envs * r for r in kind(evidence, num_envs, seconds)]
        for kind in (native, sb3, sync)
    }
    result: dict[str, Any] = {f"{name}_steps_per_s": figure(r) for name, r in rates.items()}
    result["native_over_sync"] = {
        "value": float(np.mean(rates["native"]) / np.mean(rates["sync"])),
        "ci95": None,
        "n": ROUNDS,
    }
    return result


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evidence", type=Path, help="evidence.npz; the toy table without it")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--seconds", type=float, default=3.0, help="timed seconds of each kind")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    evidence = (
        EvidenceTable.load(options.evidence) if options.evidence else toy_evidence(800, seed=0)
    )
    report = {
        "id": ENV_ID,
        "evidence": evidence.cohort,
        "synthetic": evidence.synthetic,
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(),
                    "numpy": np.__version__, "cpu": platform.processor() or platform.machine()},
        "num_envs": {str(n): measure(evidence, n, options.seconds) for n in options.num_envs},
    }  # fmt: skip
    text = json.dumps(report, indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        partial = options.out.with_suffix(options.out.suffix + ".partial")
        partial.write_text(text + "\n")
        os.replace(partial, options.out)


if __name__ == "__main__":
    main()
