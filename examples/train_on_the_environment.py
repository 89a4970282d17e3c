"""MaskablePPO on ``greenboard/CaseReview-v1``, and what it gains on patients it never saw.

    python examples/train_on_the_environment.py --steps 500000
    python examples/train_on_the_environment.py --evidence BUNDLE/evidence.npz --preset hard

A plain start for experiments of your own: expected AUC as the reward, so that the luck of labels
does not drown the credit; gamma 1, because the credits sum to the AUC gained; rewards scaled to
order 1; a fold of patients and hours of the grid kept apart for the comparison. ``greenboard rl
train`` does more: checkpoints, held-out evaluation while training, export without pickle.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecNormalize

from envs.engine import ReviewEngine
from envs.sb3 import Sb3VecEnv
from envs.setup import build_setup
from envs.toy import toy_evidence

HELD_OUT, TRAINING = [0], [1, 2, 3, 4]


def train(evidence: Any, preset: str, steps: int, num_envs: int, seed: int) -> MaskablePPO:
    """Train on the training folds and the first 70 % of the trace."""
    torch.set_num_threads(1)
    sessions = Sb3VecEnv(
        num_envs, rules="worklist", evidence=evidence, folds=TRAINING, preset=preset,
        reward="expected_auc",
    )  # fmt: skip
    sessions.seed(seed)
    # Credits are thousandths; the critic's first guesses are not, and would drown them.
    scaled = VecNormalize(sessions, norm_obs=False, gamma=1.0, clip_reward=np.inf)
    model = MaskablePPO(
        "MlpPolicy", scaled, n_steps=64, batch_size=min(2048, 64 * num_envs), n_epochs=4,
        gamma=1.0, gae_lambda=0.97, ent_coef=0.0005, seed=seed, device="cpu",
    )  # fmt: skip
    return model.learn(steps)


def gains(evidence: Any, preset: str, choose: Any, seeds: Sequence[int]) -> np.ndarray:
    """AUC gained in each of the same held-out sessions; column 1 is their gCO2e."""
    setup = build_setup(
        evidence=evidence, rules="worklist", folds=HELD_OUT, fit_folds=TRAINING, period="eval",
        preset=preset,
    )  # fmt: skip
    engine = ReviewEngine(setup, len(seeds))
    engine.begin(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])
    while not engine.over.all():
        engine.step(np.asarray(choose(engine.observe(), engine.mask)))
    totals = engine.totals()
    gain = totals["session_auc_final"] - totals["session_auc_base"]
    return np.stack([gain, totals["total_g_co2e"]], axis=1)


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, then compare with random open actions on the same held-out sessions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evidence", help="BUNDLE/evidence.npz; left out: synthetic patients")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    evidence = chosen.evidence or toy_evidence(500, seed=0)
    model = train(evidence, chosen.preset, chosen.steps, chosen.num_envs, chosen.seed)
    rng = np.random.default_rng(chosen.seed)

    def learned(observation: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return model.predict(observation, action_masks=mask, deterministic=True)[0]

    def at_random(observation: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return (rng.random(mask.shape) * mask).argmax(axis=1)

    seeds = range(10_000, 10_000 + chosen.sessions)
    played = {
        name: gains(evidence, chosen.preset, choose, seeds)
        for name, choose in (("learned", learned), ("random", at_random))
    }
    for name, columns in played.items():
        gain, grams = columns.mean(axis=0)
        print(f"{name:8} AUC gain {gain:.4f}, {grams:,.0f} gCO2e a session")
    apart = played["learned"][:, 0] - played["random"][:, 0]
    drawn = rng.choice(apart, (2000, len(apart))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    print(
        f"learned - random: {apart.mean():+.4f} [{low:+.4f}, {high:+.4f}], paired over "
        f"{len(apart)} sessions of the same held-out patients; one training seed"
    )
    return {name: float(columns[:, 0].mean()) for name, columns in played.items()}


if __name__ == "__main__":
    main()
