"""How fast PPO trains on the review sessions: frames a second, the sessions alone beside it.

Processor time is printed beside the wall clock, for machines that others use too. Run it on a
quiet one: ``python benchmarks/ppo_speed.py [--evidence BUNDLE/evidence.npz]``.
Without evidence it takes a synthetic table of 800 patients. One thread; the target is 20,000
frames/s of PPO in CaseReview at 128 sessions side by side or more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from stable_baselines3.common.logger import configure

from agent.algorithms import training_preset
from agent.sb3_callback import SessionLog
from agent.sessions import ENV_IDS, WORKLIST, SessionSource
from agent.training import new_run
from agent.training_task import TrainingTask, training_task
from distill.evidence import EvidenceTable
from envs.toy import toy_evidence

TARGET = 20_000


def _clocks() -> np.ndarray:
    """Wall clock and this process's processor time, seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def sessions_alone(task: TrainingTask, steps: int) -> np.ndarray:
    """Frames a second, by either clock, of the sessions with their masks and random actions."""
    env, rng = task.env, np.random.default_rng(0)
    env.seed(0)
    env.reset()
    started = _clocks()
    for _ in range(steps):
        mask = np.stack(env.env_method("action_masks"))
        env.step((rng.random(mask.shape) * mask).argmax(axis=1))
    return steps * env.num_envs / (_clocks() - started)


def training(task: TrainingTask, algorithm: str, rollouts: int, num_envs: int) -> np.ndarray:
    """Frames a second, by either clock, of rollouts and updates, after one rollout to warm up."""
    config = training_preset(algorithm, num_envs=num_envs)
    run = new_run(task, config)
    run.model.set_logger(configure(None, []))
    log = SessionLog(None)
    run.model.learn(config.rollout_steps, callback=log)
    started = _clocks()
    frames = rollouts * config.rollout_steps
    run.model.learn(frames, callback=log, reset_num_timesteps=False)
    return frames / (_clocks() - started)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every rate ``--repeat`` times, interleaved; medians, with the lowest and the highest."""
    table = toy_evidence(800) if args.evidence is None else EvidenceTable.load(args.evidence)
    source = SessionSource.of_evidence(table, env_id=args.env, preset=args.preset)
    rates: dict[str, list[np.ndarray]] = {"sessions alone": [], "maskable-ppo": [], "ppo": []}
    for _ in range(args.repeat):
        for name, found in rates.items():
            algorithm = "ppo" if name == "ppo" else "maskable-ppo"
            config = training_preset(algorithm, num_envs=args.num_envs)
            task = training_task(source, source.folds[-1], config)
            if name == "sessions alone":
                found.append(sessions_alone(task, 400))
            else:
                found.append(training(task, algorithm, args.rollouts, args.num_envs))
    return {
        name: {
            "frames_per_s": round(float(np.median(found, axis=0)[0])),
            "lowest": round(min(rate[0] for rate in found)),
            "highest": round(max(rate[0] for rate in found)),
            "frames_per_cpu_s": round(float(np.median(found, axis=0)[1])),
            "n": len(found),
        }
        for name, found in rates.items()
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evidence", type=Path)
    parser.add_argument("--env", default=WORKLIST, choices=ENV_IDS)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load_before = os.getloadavg()[0]
    found = measure(args)
    if args.json:
        facts = {"env": args.env, "num_envs": args.num_envs, "load_before": load_before, **found}
        print(json.dumps(facts, indent=1))
        return
    print(
        f"{args.env}, preset {args.preset}, {args.num_envs} sessions side by side, one thread, "
        f"{os.cpu_count()} cores, load {load_before:.1f} before, {platform.machine()}"
    )
    for name, figures in found.items():
        reached = "" if name == "sessions alone" else f"  target {TARGET:,}"
        print(f"{name:16}{figures['frames_per_s']:>10,} frames/s  [{figures['lowest']:,} to "
              f"{figures['highest']:,}], {figures['frames_per_cpu_s']:,} per second of processor "
              f"time, n={figures['n']}{reached}")  # fmt: skip


if __name__ == "__main__":
    main()
