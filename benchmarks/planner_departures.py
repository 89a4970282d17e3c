"""Is there anything to learn beside the planner? Exact worth of single departures from it.

All luck of a session is drawn when it begins. So a session is played twice, once as the planner
would and once with another open action at one random moment and the planner again afterwards: the
difference of the two rewards is the exact worth of that departure in that session. A network with
the observation and the planner's advice then learns to predict it, and is asked, on sessions it has
not seen, for departures that gain. Training patients and hours only; the held-out fold is not read.

    python benchmarks/planner_departures.py --bundle BUNDLE --trace FILE [--trace FILE] \
        --preset hard --sessions 512 --branches 12
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from agent.calibration import calibrate
from agent.network import ScoringNetwork
from agent.policies.features import FeatureIndex
from agent.policies.guide import with_advice
from agent.policies.protocol import Policy
from agent.rollout import start_sessions
from agent.sessions import WORKLIST, SessionSource
from envs.setup import ReviewSetup

FIRST_SEED = 50_000
EPOCHS, BATCH, RATE = 12, 128, 2e-3
THRESHOLDS = (0.0, 0.02, 0.05)
POINTS = 100.0
"""AUC points in one AUC."""


def play(
    guide: Policy, setup: ReviewSetup, seeds: list[int], at: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, int, int, int]]]:
    """Reward and length of each session, and its one departure at step ``at`` (-1: none)."""
    engine, made = start_sessions(setup, seeds), []
    total, length, step = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=int), 0
    while not engine.over.all():
        active, mask, seen = ~engine.over, engine.mask, engine.observe()
        action = guide.act(seen, mask)
        for row in np.flatnonzero((at == step) & active):
            others = np.setdiff1d(np.flatnonzero(mask[row]), action[row])
            if others.size:
                made.append((seen[row].copy(), int(action[row]), int(rng.choice(others)), int(row)))
                action[row] = made[-1][2]
        length += active
        total += engine.step(action).reward
        step += 1
    return total, length, made


def predicted(
    index: FeatureIndex, seen: torch.Tensor, actions: torch.Tensor, worth: torch.Tensor, fit: list
) -> np.ndarray:
    """Worth of each departure as a network says that learned from those of ``fit``."""
    torch.manual_seed(0)
    network, rng = ScoringNetwork(index, advice_weight=0.0), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-3)

    def difference(rows: torch.Tensor) -> torch.Tensor:
        both = network(seen[rows])[0].gather(1, actions[rows])
        return both[:, 1] - both[:, 0]

    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = RATE * (1.0 - epoch / EPOCHS)
        for part in np.array_split(rng.permutation(fit), max(1, len(fit) // BATCH)):
            rows = torch.as_tensor(part)
            loss = (difference(rows) - worth[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return difference(torch.arange(len(seen))).numpy()


def main() -> None:
    """Collect, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--trace", type=Path, action="append")
    parser.add_argument("--preset", default="hard")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--sessions", type=int, default=512)
    parser.add_argument("--branches", type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = SessionSource.open(args.bundle, trace=args.trace, env_id=WORKLIST, preset=args.preset)
    setup, rng = source.training(args.fold), np.random.default_rng(0)
    guide = calibrate("planner", setup, range(32))
    seeds = list(range(FIRST_SEED, FIRST_SEED + args.sessions))
    base, length, _ = play(guide, setup, seeds, np.full(args.sessions, -1), rng)
    rows, worth = [], []
    for _ in range(args.branches):
        at = (rng.random(args.sessions) * length).astype(int)
        total, _, made = play(guide, setup, seeds, at, rng)
        rows += made
        worth += [(total - base)[row] * POINTS for *_, row in made]
    session = np.array([row for *_, row in rows])
    gain, unseen = np.array(worth), session % 5 == 0
    index = FeatureIndex.of(setup.layout)
    advised = np.array([row[1] for row in rows])
    seen = with_advice(np.array([row[0] for row in rows]), advised, index.n_actions)
    actions = torch.as_tensor(np.array([[row[1], row[2]] for row in rows]))
    guess = predicted(
        index, torch.as_tensor(seen), actions, torch.as_tensor(gain, dtype=torch.float32),
        np.flatnonzero(~unseen).tolist(),
    )  # fmt: skip
    left = ((guess - gain)[unseen] ** 2).mean() / gain[unseen].var()
    print(f"{args.preset}: {len(gain)} departures, worth {gain.mean():+.3f} AUC points on average, "
          f"sd {gain.std():.3f}, {(gain > 1e-9).mean():.0%} gain; predicted on unseen sessions "
          f"with R2 {1.0 - left:.2f}")  # fmt: skip
    for threshold in THRESHOLDS:
        chosen = unseen & (guess > threshold)
        half = 1.96 * gain[chosen].std() / max(np.sqrt(chosen.sum()), 1.0)
        mean = gain[chosen].mean() if chosen.any() else float("nan")
        print(f"  predicted to gain more than {threshold:.2f}: {chosen.sum()} of {unseen.sum()}, "
              f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]")  # fmt: skip


if __name__ == "__main__":
    main()
