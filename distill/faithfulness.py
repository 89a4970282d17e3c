"""Are explanations true of the model? Remove what is said to matter and see what changes.

A modality is removed in ways that the explanation did not use: its features are swapped for those
of other patients, or another student, of other training folds, is asked. Features are replaced by
their training means. Random choices, a fixed order for everybody, and explanations of a student
with random weights are the controls (Adebayo et al. 2018). Training only: needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from distill.attribution import calibrated_attributions, mean_patient
from distill.calibrate import Calibration
from distill.contributions import without_each
from distill.fit import FittedStudent
from distill.masks import everything_masks
from distill.metrics import Figure, means_over_hospitals
from distill.student import Student

DONORS = 12
"""Other patients whose features stand in for a modality."""
Order = Mapping[int, Int[np.ndarray, " _"]]
"""By a modality's position: its features, the most important first."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A student and what is needed to ask it about patients.

    Attributes:
        student: the student.
        calibration: its temperatures.
        x: the patients' features behind the student's own preprocessing.
        present: who has which modality.
    """

    student: FittedStudent
    calibration: Calibration
    x: Float32[np.ndarray, "rows inputs features"]
    present: Bool[np.ndarray, "rows modalities"]

    @property
    def everything(self) -> Float32[np.ndarray, "rows tokens"]:
        """Masks of all that each patient has."""
        shape = self.student.shape
        return everything_masks(self.present, shape.modalities, shape.transfers)

    def logit(self, x: Float32[np.ndarray, "rows inputs features"]) -> Float64[np.ndarray, " rows"]:
        """Calibrated log-odds of these features, with everything."""
        mask = self.everything
        raw = self.student.logits(x, mask[:, None])[0][:, 0]
        return np.asarray(raw / self.calibration.of_masks(mask))


def left_out(asked: Asked) -> Float64[np.ndarray, "rows modalities"]:
    """Contributions: log-odds with everything minus those without each modality; NaN: lacks it."""
    shape, everything = asked.student.shape, asked.everything
    out = np.full(asked.present.shape, np.nan)
    whole = asked.logit(asked.x)
    masks = np.repeat(everything[:, None], len(shape.modalities), axis=1)
    for i, mask in enumerate(everything):
        names, without = without_each(mask, shape.modalities, shape.transfers)
        masks[i, [shape.modalities.index(name) for name in names]] = without
    raw = asked.student.logits(asked.x, masks)[0]
    for j in range(len(shape.modalities)):
        scaled = raw[:, j] / asked.calibration.of_masks(masks[:, j])
        # Nothing is left of a patient with one modality: then the prior speaks.
        scaled = np.where(masks[:, j].any(axis=1), scaled, asked.calibration.prior_logit)
        out[asked.present[:, j], j] = (whole - scaled)[asked.present[:, j]]
    return out


@torch.no_grad()
def attention_by_modality(asked: Asked) -> Float64[np.ndarray, "rows modalities"]:
    """Share of attention on each modality and the bridges from it; NaN where it is lacking."""
    shape = asked.student.shape
    model = asked.student.model.eval()
    sets = torch.from_numpy(asked.everything[:, None])
    share = model(torch.from_numpy(asked.x), sets).attention[:, 0].double().numpy()
    source = np.array([*range(len(shape.modalities)), *shape.sources])
    summed = np.stack([share[:, source == j].sum(axis=1) for j in range(len(shape.modalities))], 1)
    return np.where(asked.present, summed, np.nan)


def swapped(
    asked: Asked, rng: np.random.Generator, donors: int = DONORS
) -> tuple[Float64[np.ndarray, "rows modalities"], Float64[np.ndarray, "rows modalities"]]:
    """Change of the log-odds when a modality's features are those of other patients.

    Returns:
        Size of the mean change over the donors, which is what the patient's own values bring
        against anybody's, and mean size of the change, which donors alone can make large.
    """
    whole = asked.logit(asked.x)
    mean, size = np.full(asked.present.shape, np.nan), np.full(asked.present.shape, np.nan)
    for j in range(asked.present.shape[1]):
        having = np.flatnonzero(asked.present[:, j])
        change = np.zeros((donors, having.size))
        for d in range(donors):
            x = asked.x.copy()
            x[having, j] = asked.x[rng.permutation(having), j]
            change[d] = (asked.logit(x) - whole)[having]
        mean[having, j], size[having, j] = np.abs(change.mean(axis=0)), np.abs(change).mean(axis=0)
    return mean, size


def randomised(student: FittedStudent, seed: int) -> FittedStudent:
    """The same student with random weights: what an explanation looks like that knows nothing."""
    torch.manual_seed(seed)
    model = Student(student.shape).eval().requires_grad_(False)
    with torch.no_grad():
        # The last layer and the bridges' shares start at zero, which would silence the attention.
        for parameter in (*model.interaction.parameters(), model.bridge_share):
            parameter.normal_(std=0.3)
    return FittedStudent(model=model, preprocessors=student.preprocessors, times=student.times)


def most_against_least(
    said: Float64[np.ndarray, "rows modalities"],
    effect: Float64[np.ndarray, "rows modalities"],
    group: Shaped[np.ndarray, " rows"],
    rng: np.random.Generator,
    control: Float64[np.ndarray, "rows modalities"] | None = None,
) -> dict[str, Any]:
    """Effect of removing what is said to matter most, against least and against any.

    Args:
        said: size of what is said of each modality, per patient; NaN where it is lacking.
        effect: absolute change of the log-odds when it is removed.
        group: hospitals, redrawn whole for the intervals.
        rng: their source, and that of ties.
        control: what somebody else says; the paired difference to it is told too.
    """
    several = np.isfinite(said).sum(axis=1) >= 2
    moved = effect[several]
    top, bottom = _ends(said[several], moved, rng)
    any_ = np.nanmean(moved, axis=1) if moved.size else top
    value = {
        "most_minus_least": top - bottom,
        "most_minus_random": top - any_,
        "share_most_above_least": (top > bottom).astype(np.float64),
    }
    if control is not None:
        best, worst = _ends(control[several], moved, rng)
        value["most_minus_least_beyond_control"] = (top - bottom) - (best - worst)
    stacked = np.stack(list(value.values()), axis=1)
    every = np.ones(stacked.shape, dtype=bool)
    figures = means_over_hospitals(stacked, every, group[several], rng)
    return {name: figure.to_json() for name, figure in zip(value, figures)}


def _ends(
    said: Float64[np.ndarray, "rows modalities"],
    effect: Float64[np.ndarray, "rows modalities"],
    rng: np.random.Generator,
) -> tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
    shown = said + 1e-12 * rng.random(said.shape)
    rows, lacking = np.arange(said.shape[0]), np.isnan(said)
    most = np.argmax(np.where(lacking, -np.inf, shown), axis=1)
    least = np.argmin(np.where(lacking, np.inf, shown), axis=1)
    return effect[rows, most], effect[rows, least]


def removal_by_rank(
    asked: Asked,
    order: Order,
    baseline: Float32[np.ndarray, "inputs features"],
    k: int,
) -> Float64[np.ndarray, " rows"]:
    """Absolute change of the log-odds when k features a modality are set to their training mean.

    Args:
        asked: held-out patients.
        order: modality's position -> its features, the first k of which are removed.
        baseline: the training means.
        k: how many.
    """
    x = asked.x.copy()
    for j, features in order.items():
        having = np.flatnonzero(asked.present[:, j])
        x[having[:, None], j, features[None, :k]] = baseline[j, features[:k]]
    return np.asarray(np.abs(asked.logit(x) - asked.logit(asked.x)))


def ranking(trained_on: Asked, baseline: Float32[np.ndarray, "inputs features"]) -> Order:
    """Every modality's features by mean size of the attributions on the training patients."""
    share = calibrated_attributions(
        trained_on.student, trained_on.calibration, trained_on.x, trained_on.present, baseline
    )
    out: dict[int, Int[np.ndarray, " _"]] = {}
    for j, fitted in enumerate(trained_on.student.preprocessors):
        size = np.abs(share[trained_on.present[:, j], j]).mean(axis=0)[: len(fitted.selected)]
        out[j] = np.argsort(-size, kind="stable")
    return out


def features_removed(
    trained_on: Asked, held_out: Asked, ks: tuple[int, ...], rng: np.random.Generator, draws: int
) -> dict[int, dict[str, Float64[np.ndarray, " rows"]]]:
    """Change per held-out patient when the top k, k random, or a random model's top k are removed.

    Args:
        trained_on: the training patients of the same student, who give the ranking.
        held_out: patients that it has not seen.
        ks: numbers of features a modality.
        rng: source of the random choices.
        draws: random choices, and random models, to average over.
    """
    baseline = mean_patient(trained_on.x, trained_on.present)
    best = ranking(trained_on, baseline)
    blind = []
    for _ in range(draws):
        model = randomised(trained_on.student, int(rng.integers(2**31)))
        other = Asked(student=model, calibration=trained_on.calibration, x=trained_on.x,
                      present=trained_on.present)  # fmt: skip
        blind.append(ranking(other, baseline))
    chance = [{j: rng.permutation(f) for j, f in best.items()} for _ in range(draws)]
    return {
        k: {
            "top": removal_by_rank(held_out, best, baseline, k),
            "random": _mean([removal_by_rank(held_out, o, baseline, k) for o in chance]),
            "random_model": _mean([removal_by_rank(held_out, o, baseline, k) for o in blind]),
        }
        for k in ks
    }


def _mean(parts: list[Float64[np.ndarray, " rows"]]) -> Float64[np.ndarray, " rows"]:
    return np.asarray(np.mean(parts, axis=0))


def above_zero(figure: Figure | Mapping[str, Any]) -> bool:
    """Whether a figure's whole interval lies above 0."""
    interval = figure.ci95 if isinstance(figure, Figure) else figure["ci95"]
    return interval is not None and interval[0] > 0
