"""Steps a second of the review sessions: native batch, SB3 adapter, SyncVectorEnv of singles.

    python benchmarks/env_speed.py --out runs/env_speed.json
    python benchmarks/env_speed.py --evidence BUNDLE/evidence.npz --num-envs 256 1024

A step is one environment's step with its observation, mask, reward and info. Actions are random
among the open ones and drawn outside the clock; resets are inside it. The kinds take turns, round
by round, so that what else the machine does hits them alike; a round's ratio is between neighbours
in time. Intervals are over rounds (Student's t). ``best`` is the quickest round: on a machine with
other work it is nearer to what the code can do. ``per_cpu_s`` counts this process's processor time
instead of the wall's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from scipy.stats import t as student

import envs  # noqa: F401  (registers the ids)
from distill.evidence import EvidenceTable
from envs.sb3 import Sb3VecEnv
from envs.toy import toy_evidence

IDS = {
    "greenboard/CaseReviewOneShot-v1": 1_000_000,
    "greenboard/CaseReviewSequential-v1": 1_000_000,
    "greenboard/CaseReview-v1": 500_000,
}
"""Environments, and the native steps a second aimed at with 1,024 of them on two cores."""


@dataclass(kw_only=True)
class Kind:
    """One way to step a batch, and how quick its rounds were.

    Attributes:
        step: takes the actions of all environments.
        masks: which actions are open.
        rates: environment steps a second, one a round.
        cpu_rates: the same by the process's own processor time.
    """

    step: Callable[[np.ndarray], Any]
    masks: Callable[[], np.ndarray]
    rates: list[float] = field(default_factory=list)
    cpu_rates: list[float] = field(default_factory=list)

    def run(self, seconds: float, rng: np.random.Generator) -> None:
        """One round."""
        wall, cpu, steps, batch = 0.0, 0.0, 0, 0
        while wall < seconds:
            mask = self.masks()
            # A random open action in each row.
            actions = (rng.random(mask.shape, dtype=np.float32) * mask).argmax(axis=1)
            begun, begun_cpu = time.perf_counter(), time.process_time()
            self.step(actions)
            wall += time.perf_counter() - begun
            cpu += time.process_time() - begun_cpu
            steps, batch = steps + 1, len(actions)
        self.rates.append(steps * batch / wall)
        self.cpu_rates.append(steps * batch / cpu)


def kinds(env_id: str, evidence: EvidenceTable, num_envs: int) -> dict[str, Kind]:
    """The native batch, the SB3 adapter and Gymnasium's loop over single environments."""
    native: Any = gymnasium.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", evidence=evidence
    )
    adapter = Sb3VecEnv(num_envs, evidence=evidence, **gymnasium.spec(env_id).kwargs)
    sync: Any = gymnasium.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="sync", evidence=evidence,
        gain_model=native.gain_model,
    )  # fmt: skip
    native.reset(seed=0)
    adapter.reset()
    sync.reset(seed=0)
    return {
        "native": Kind(step=native.step, masks=native.action_masks),
        "sb3": Kind(step=adapter.step, masks=adapter.action_masks),
        "sync": Kind(
            step=sync.step,
            masks=lambda: np.stack([e.unwrapped.action_masks() for e in sync.envs]),
        ),
    }


def figure(values: list[float], *, best: bool = True) -> dict[str, Any]:
    """Mean over rounds with its interval, and the best round."""
    n, mean = len(values), float(np.mean(values))
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5)
    said: dict[str, Any] = {"value": mean, "ci95": [mean - half, mean + half], "n": n}
    return said | ({"best": max(values)} if best else {})


def measure(
    env_id: str, evidence: EvidenceTable, num_envs: int, *, rounds: int, seconds: float
) -> dict[str, Any]:
    """Environment steps a second of each kind at one batch size, and the ratio."""
    rng, stepped = np.random.default_rng(0), kinds(env_id, evidence, num_envs)
    for turn in range(rounds + 1):
        for kind in stepped.values():
            kind.run(seconds, rng)
            if turn == 0:  # the first round warms up
                kind.rates.clear()
                kind.cpu_rates.clear()
    result: dict[str, Any] = {}
    for name, kind in stepped.items():
        result[f"{name}_steps_per_s"] = figure(kind.rates)
        result[f"{name}_steps_per_cpu_s"] = figure(kind.cpu_rates)
    ratio = [a / b for a, b in zip(stepped["native"].rates, stepped["sync"].rates)]
    result["native_over_sync"] = figure(ratio, best=False)
    return result


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evidence", type=Path, help="evidence.npz; the toy table without it")
    parser.add_argument("--ids", nargs="+", default=list(IDS), help="environments")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1024])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="timed seconds a round and kind")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    evidence = (
        EvidenceTable.load(options.evidence) if options.evidence else toy_evidence(800, seed=0)
    )
    speed = {
        env_id: {
            str(n): measure(env_id, evidence, n, rounds=options.rounds, seconds=options.seconds)
            for n in options.num_envs
        }
        for env_id in options.ids
    }
    report = {
        "evidence": evidence.cohort,
        "synthetic": evidence.synthetic,
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg(),
                    "python": platform.python_version(), "numpy": np.__version__,
                    "cpu": platform.processor() or platform.machine()},
        "aim_steps_per_s": IDS,
        "num_envs": speed,
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
