"""Everything that can be set about training, in one frozen class with named presets."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

from distill.errors import TrainingError

Preset = Literal["default", "quick"]
PRESETS: tuple[Preset, ...] = ("default", "quick")
WEIGHTS = (
    "branch_weight",
    "match_weight",
    "fused_match_weight",
    "bridge_task_weight",
    "bridge_soft_weight",
    "bridge_latent_weight",
    "contrast_weight",
    "relational_weight",
)
"""Every weight of the objective; each may be 0, which switches its term off."""
COUNTS = (
    "torch_threads",
    "epochs",
    "batch",
    "screen_to",
    "boosters",
    "sets_per_patient",
    "calibration_folds",
    "choice_epochs",
    "choice_folds",
)
"""What must be 1 or more."""


def default_threads() -> int:
    """Two cores, or the one that there is."""
    return min(2, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training run; the same settings and seed give the same bundle.

    Attributes:
        seed: the only source of randomness.
        labels: how many labels to keep, the other patients being unlabelled; None: all.
        threads: cores for the forests; 0: two, or the one there is.
        torch_threads: cores for torch; the student's tensors are too small to gain from two.
            Part of what a repeatable run has to keep.
        screen_to: features kept per modality, chosen on training rows.
        screen_trees: extremely randomised trees that rank features.
        boosting_rounds: trees of a boosted model.
        boosters: boosted models whose mean is the boosted teacher.
        epochs: passes over the labelled training rows.
        batch: patients a step.
        sets_per_patient: random evidence sets drawn per patient and step.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: AdamW's.
        width: units of a modality's encoder.
        latent: units of a teacher's latent, and so of a bridge's estimate of it.
        token: size of a token in the attention.
        heads: attention heads.
        dropout: dropout inside the encoders.
        soft_share: weight of the soft label against the hard one, 0 to 1.
        doubt_share: share of a mixture's doubt that its teachers' sum answers for, 0 to 1.
        branch_weight: weight of each modality's own loss.
        match_weight: weight of matching each teacher on synthetic rows of its modality.
        fused_match_weight: weight of matching the teachers' summed log-odds on random sets of
            synthetic modalities.
        synthetic_rows: synthetic rows per modality.
        swap_rate: chance that a cell of a synthetic row comes from the partner.
        bridge_task_weight: bridge: cross-entropy on labels.
        bridge_soft_weight: bridge: soft-label cross-entropy against the target's teacher.
        bridge_latent_weight: bridge: regression to the target's latent.
        contrast_weight: bridge: InfoNCE between its estimate and the target's latent.
        contrast_temperature: InfoNCE's temperature, which divides cosines.
        relational_weight: distances between patients, the encoder's against its teacher's latent.
        choose_weights: choose the weights of the teachers' terms by inner cross-validation.
        choice_epochs: epochs of the shortened fits of that choice.
        choice_folds: training folds of which each is held out once to choose.
        calibration_folds: training folds of which each is held out once to fit temperatures.
        time_gate: weigh tokens by the cohort's temporal columns, where it has any.
        boosted_baselines: also the boosted early fusion, the slowest of the baselines.
    """

    seed: int = 0
    labels: int | None = None
    threads: int = 0
    torch_threads: int = 1
    screen_to: int = 64
    screen_trees: int = 200
    boosting_rounds: int = 150
    boosters: int = 3
    epochs: int = 200
    batch: int = 128
    sets_per_patient: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    width: int = 48
    latent: int = 16
    token: int = 32
    heads: int = 4
    dropout: float = 0.2
    soft_share: float = 0.7
    doubt_share: float = 1.0
    branch_weight: float = 0.5
    match_weight: float = 4.0
    fused_match_weight: float = 2.0
    synthetic_rows: int = 1500
    swap_rate: float = 0.35
    bridge_task_weight: float = 0.1
    bridge_soft_weight: float = 0.1
    bridge_latent_weight: float = 0.1
    contrast_weight: float = 0.0
    contrast_temperature: float = 0.2
    relational_weight: float = 0.0
    choose_weights: bool = True
    choice_epochs: int = 20
    choice_folds: int = 3
    calibration_folds: int = 5
    time_gate: bool = True
    boosted_baselines: bool = True

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise TrainingError(f"threads is {self.threads}; use 1 or more (0: two, or fewer).")
        if self.labels is not None and self.labels < 1:
            raise TrainingError(f"labels is {self.labels}; keep 1 or more (None: all of them).")
        if self.token % self.heads:
            raise TrainingError(f"token ({self.token}) must be a multiple of heads ({self.heads}).")
        self._check_weights()
        for name in COUNTS:
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be 1 or more.")

    def _check_weights(self) -> None:
        shares = (self.soft_share, self.doubt_share)
        if not all(0 <= share <= 1 for share in shares) or not 0 < self.swap_rate < 1:
            raise TrainingError("soft_share, doubt_share, swap_rate are shares between 0 and 1.")
        for name in WEIGHTS:
            if not 0 <= getattr(self, name) < float("inf"):
                raise TrainingError(f"{name} is {getattr(self, name)}; use 0 (off) or more.")
        if not self.contrast_temperature > 0:
            raise TrainingError(f"contrast_temperature is {self.contrast_temperature}; use > 0.")

    @property
    def n_threads(self) -> int:
        """Threads to use, with 0 resolved."""
        return self.threads or default_threads()

    @classmethod
    def preset(cls, name: str, *, seed: int = 0, threads: int = 0) -> TrainConfig:
        """``default`` for results, ``quick`` for demonstrations (seconds instead of minutes).

        Raises:
            TrainingError: if there is no such preset.
        """
        if name not in PRESETS:
            raise TrainingError(f"Unknown preset {name!r}; choose one of {', '.join(PRESETS)}.")
        base = cls(seed=seed, threads=threads)
        if name == "default":
            return base
        return replace(
            base, screen_trees=60, boosting_rounds=60, boosters=1, epochs=25, sets_per_patient=3,
            synthetic_rows=1000, calibration_folds=1, boosted_baselines=False,
            choose_weights=False,
        )  # fmt: skip
