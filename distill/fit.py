"""Fit one student to the patients outside some folds, taught by the teachers of those folds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy.special import expit, logit
from torch import Tensor

from distill.ageing import Ageing, fit_ageing
from distill.batches import Batches
from distill.config import TrainConfig
from distill.crossfit import Folds, TeacherLattice, TrainingData, seed_for
from distill.errors import TrainingError
from distill.grid import on_grid
from distill.loop import train_student
from distill.losses import soft_cross_entropy
from distill.metrics import auc_value
from distill.objective import student_loss as student_loss  # noqa: PLC0414 (found here too)
from distill.preprocess import TablePreprocessor
from distill.sampling import swapped_rows
from distill.student import Student, StudentShape, TeacherNet
from distill.teacher import prior_logit, summed_logit
from distill.temporal import TimeScaler, fit_times
from distill.transfers import BASE_MODALITY, all_transfers

NET_STEPS = 120
SEED_SYNTHETIC, SEED_NET, SEED_STUDENT = 1, 2, 3
SEED_VARIANT = 100_000


@dataclass(frozen=True, kw_only=True)
class FittedStudent:
    """A student with the preprocessing that it was trained behind.

    ``as_trained`` is the student before its matrices were rounded, to tell what that changed.
    """

    model: Student
    preprocessors: tuple[TablePreprocessor, ...]
    times: TimeScaler | None = None
    as_trained: Student | None = None

    @property
    def shape(self) -> StudentShape:
        """Sizes and names."""
        return self.model.shape

    def features(self, data: TrainingData) -> Float32[np.ndarray, "patients inputs features"]:
        """All patients' features, and times where it has a gate."""
        return features_of(data, self.preprocessors, self.shape.features, self.times)

    @torch.no_grad()
    def logits(
        self,
        x: Float32[np.ndarray, "rows inputs features"],
        mask: Float32[np.ndarray, "maskrows sets tokens"],
        chunk: int = 64,
    ) -> tuple[Float64[np.ndarray, "rows sets"], Float64[np.ndarray, "rows tokens"]]:
        """Uncalibrated log-odds of every set and of every token; rows in chunks to spare memory.

        A mask with one row is used for all patients.
        """
        self.model.eval()
        logit = np.empty((x.shape[0], mask.shape[1]))
        token = np.empty((x.shape[0], mask.shape[2]))
        for start in range(0, x.shape[0], chunk):
            part = slice(start, start + chunk)
            inputs = torch.from_numpy(x[part])
            chosen = mask if mask.shape[0] == 1 else mask[part]
            masks = torch.from_numpy(np.ascontiguousarray(chosen))
            out = self.model(inputs, masks.expand(inputs.shape[0], -1, -1))
            logit[part], token[part] = out.logit.numpy(), out.token_logit.numpy()
        return logit, token


def features_of(
    data: TrainingData,
    preprocessors: tuple[TablePreprocessor, ...],
    width: int,
    times: TimeScaler | None = None,
) -> Float32[np.ndarray, "patients inputs features"]:
    """All patients' features behind one student's preprocessing; with ``times`` one row more."""
    inputs = len(data.modalities) + (times is not None)
    x = np.zeros((data.label.size, inputs, width), dtype=np.float32)
    if times is not None and data.gap is not None:
        x[:, -1, : times.n_features] = times.transform(data.gap)
    for j, name in enumerate(data.modalities):
        table = data.tables[name]
        part = preprocessors[j].transform(table.raw)
        x[table.row, j, : part.shape[1]] = part
    return x


def ageing_of(
    lattice: TeacherLattice, excluded: Folds, times: TimeScaler | None
) -> tuple[Ageing, ...]:
    """How each inference teacher's held-out word ages; clinical data are of the review itself."""
    data = lattice.data
    if times is None or data.gap is None:
        return ()
    known = data.rows(excluded) & data.labelled
    prior = prior_logit(data.label[known].astype(np.int64))
    features, label = times.transform(data.gap), data.label.astype(np.int64)
    silent = np.full(label.size, np.nan)
    return tuple(
        fit_ageing(
            silent if m == BASE_MODALITY
            else np.where(known, lattice.teacher(m, excluded)[1], np.nan),
            label, features, prior,
        )
        for m in data.modalities
    )  # fmt: skip


def soft_labels(
    lattice: TeacherLattice,
    excluded: Folds,
    times: TimeScaler | None = None,
    ageing: tuple[Ageing, ...] = (),
) -> tuple[Float64[np.ndarray, " patients"], Float64[np.ndarray, "patients modalities"]]:
    """Probabilities that no teacher was fitted on: of all together, and of each inference teacher.

    The inference teachers' log-odds are summed (strong late fusion); each privileged teacher that
    saw the patient counts as much as that sum. NaN where a patient is excluded or lacks it. With
    ``ageing`` an inference teacher's log-odds are first corrected for the patient's times.
    """
    data = lattice.data
    each = np.stack([lattice.teacher(m, excluded)[1] for m in data.modalities], axis=1)
    if times is not None and data.gap is not None:
        features = times.transform(data.gap)
        each = np.stack([a.apply(each[:, j], features) for j, a in enumerate(ageing)], axis=1)
    known = data.rows(excluded) & data.labelled
    prior = prior_logit(data.label[known].astype(np.int64))
    voices = [expit(summed_logit(each, prior))]
    voices += [expit(lattice.teacher(m, excluded)[1]) for m in data.privileged]
    stacked = np.stack(voices, axis=1)
    counted = np.isfinite(stacked)
    together = np.where(counted, stacked, 0.0).sum(axis=1) / counted.sum(axis=1)
    return together, expit(each)


def train_teacher_net(
    x: Float[Tensor, "rows features"],
    target: Float[Tensor, " rows"],
    latent: int,
    seed: int,
) -> TeacherNet:
    """A task-trained network on one modality, then frozen: its latent is what bridges aim at."""
    torch.manual_seed(seed)
    net = TeacherNet(x.shape[1], latent)
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=0.05, fused=True)
    weight = torch.ones_like(target)
    for _ in range(NET_STEPS):
        optimiser.zero_grad()
        loss = soft_cross_entropy(net(x)[1], target, weight)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return net.requires_grad_(False).eval()


def _latents(
    x: Float[Tensor, "rows modalities features"],
    present: Bool[np.ndarray, "rows modalities"],
    target: Float[Tensor, " rows"],
    config: TrainConfig,
    excluded: Folds,
) -> Float[Tensor, "rows modalities latent"]:
    out = torch.zeros(x.shape[0], x.shape[1], config.latent)
    for j in range(x.shape[1]):
        have = torch.from_numpy(np.flatnonzero(present[:, j]))
        seed = seed_for(config, 100 * SEED_NET + j, excluded)
        net = train_teacher_net(x[have, j], target[have], config.latent, seed)
        latent = net(x[have, j])[0]
        # Unit scale, so that the regression's weight means the same for every modality.
        out[have, j] = (latent - latent.mean(0)) / latent.std(0).clamp(min=1e-3)
    return out


def _synthetic(
    lattice: TeacherLattice, excluded: Folds, rows: int, width: int
) -> tuple[Float[Tensor, "synthetic modalities features"], Float[Tensor, "synthetic modalities"]]:
    data, config = lattice.data, lattice.config
    x = np.zeros((rows, len(data.modalities), width), dtype=np.float32)
    logit = np.zeros((rows, len(data.modalities)), dtype=np.float32)
    for j, name in enumerate(data.modalities):
        rng = np.random.default_rng(seed_for(config, 100 * SEED_SYNTHETIC + j, excluded))
        table = data.tables[name]
        inside = np.flatnonzero(data.rows(excluded)[table.row])
        raw = swapped_rows(table.raw.take(inside), rows, config.swap_rate, rng)
        teacher, _ = lattice.teacher(name, excluded)
        part = teacher.fit.preprocessor.transform(raw)
        x[:, j, : part.shape[1]] = part
        logit[:, j] = teacher.logit(raw)
    return torch.from_numpy(x), torch.from_numpy(logit)


def make_batches(
    lattice: TeacherLattice,
    excluded: Folds,
    preprocessors: tuple[TablePreprocessor, ...],
    width: int,
    times: TimeScaler | None = None,
    *,
    ageing: tuple[Ageing, ...] = (),
) -> Batches:
    """Everything that training on these folds needs, as tensors."""
    data, config = lattice.data, lattice.config
    rows = np.flatnonzero(data.rows(excluded))
    together, each = soft_labels(lattice, excluded, times, ageing)
    labelled = data.labelled[rows]
    # A label that is not kept is not even read: the soft one takes its place, so that the mixture
    # is the soft one too.
    label = np.where(labelled, data.label[rows], together[rows]).astype(np.float32)
    share = config.soft_share
    target = torch.from_numpy(((1 - share) * label + share * together[rows]).astype(np.float32))
    hard = data.label[rows[labelled]].astype(np.int64)
    prior = prior_logit(hard)
    x = torch.from_numpy(features_of(data, preprocessors, width, times)[rows])
    present = data.present()[rows]
    synthetic_x, synthetic_logit = _synthetic(lattice, excluded, config.synthetic_rows, width)
    return Batches(
        x=x,
        present=present,
        target=target,
        label=torch.from_numpy(label),
        labelled=torch.from_numpy(labelled.astype(np.float32)),
        teacher=torch.from_numpy(np.nan_to_num(each[rows], nan=0.5).astype(np.float32)),
        latent=_latents(x[:, : present.shape[1]], present, target, config, excluded),
        synthetic_x=synthetic_x,
        synthetic_logit=synthetic_logit,
        prior=prior,
        doubt=torch.from_numpy(doubts(logit(each[rows[labelled]]), hard, prior)),
    )


def doubts(
    each: Float64[np.ndarray, "rows modalities"], label: Int[np.ndarray, " rows"], prior: float
) -> Float32[np.ndarray, " mixtures"]:
    """For every mixture of modalities, how little the sum of its teachers tells the classes apart.

    One minus Somers' D, that is 2 - 2 AUC, of held-out log-odds: 0 where the teachers know, 1 where
    they guess (or where nobody has the mixture, or one class only). Entry i is the mixture of the
    modalities whose bits are set in i.
    """
    m = each.shape[1]
    out = np.ones(2**m, dtype=np.float32)
    for i in range(1, 2**m):
        part = each[:, [j for j in range(m) if i >> j & 1]]
        have = np.isfinite(part).all(axis=1)
        if np.unique(label[have]).size == 2:
            auc = auc_value(label[have], summed_logit(part[have], prior))
            out[i] = min(1.0, 2.0 - 2.0 * auc)
    return out


def time_scaler(data: TrainingData, excluded: Folds) -> TimeScaler | None:
    """Scaling of the gaps, from the patients outside ``excluded``; None without any column."""
    if data.gap is None or not data.times:
        return None
    return fit_times(data.times, data.gap[data.rows(excluded)])


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a student of some folds is fitted on and behind, whatever its objective."""

    batches: Batches
    shape: StudentShape
    preprocessors: tuple[TablePreprocessor, ...]
    times: TimeScaler | None


def student_inputs(lattice: TeacherLattice, excluded: Folds) -> Inputs:
    """Preprocessing, sizes and tensors of the student of all patients outside ``excluded``."""
    data, config = lattice.data, lattice.config
    preprocessors = tuple(lattice.teacher(m, excluded)[0].fit.preprocessor for m in data.modalities)
    times = time_scaler(data, excluded) if config.time_gate else None
    ageing = ageing_of(lattice, excluded, times)
    shape = StudentShape(
        modalities=data.modalities,
        transfers=all_transfers(data.modalities),
        features=max(
            *(len(p.selected) for p in preprocessors), times.n_features if times is not None else 0
        ),
        width=config.width,
        latent=config.latent,
        token=config.token,
        heads=config.heads,
        dropout=config.dropout,
        times=() if times is None else times.names,
        ageing=ageing,
    )
    batches = make_batches(lattice, excluded, preprocessors, shape.features, times, ageing=ageing)
    return Inputs(batches=batches, shape=shape, preprocessors=preprocessors, times=times)


def fit_student(
    lattice: TeacherLattice,
    excluded: Folds,
    config: TrainConfig | None = None,
    inputs: Inputs | None = None,
    *,
    variant: int = 0,
    attended: bool = True,
) -> FittedStudent:
    """The student of all patients outside ``excluded``, with teachers of the same patients.

    Args:
        lattice: makes the teachers.
        excluded: folds of which nothing takes part.
        config: weights and epochs, where they differ from the lattice's.
        inputs: what :func:`student_inputs` gave, where several students share it; their target has
            the lattice's share of soft labels and is mixed anew for another one.
        variant: tells students of the same folds and other weights apart; part of the seed.
        attended: whether the lattice's control steers the training.
    """
    settings = config or lattice.config
    inputs = inputs or student_inputs(lattice, excluded)
    batches = remixed(inputs.batches, lattice.config.soft_share, settings.soft_share)
    seed = seed_for(settings, SEED_STUDENT + SEED_VARIANT * variant, excluded)
    control = lattice.attend(seed) if attended else None
    model = train_student(batches, inputs.shape, settings, seed, loss=student_loss, control=control)
    return FittedStudent(
        model=on_grid(model), preprocessors=inputs.preprocessors, times=inputs.times,
        as_trained=model,
    )  # fmt: skip


def remixed(batches: Batches, share: float, wanted: float) -> Batches:
    """The batches with another share of the soft label in their target.

    The target is label + share * (soft - label), so the soft label is found in it unless the share
    was 0.

    Raises:
        TrainingError: if there is no soft label in the target to take more of.
    """
    if wanted == share:
        return batches
    if share == 0:
        raise TrainingError(
            f"soft_share is 0 in the settings that made the targets, and {wanted} is wanted of "
            "them; make them with a share above 0."
        )
    target = batches.label + (batches.target - batches.label) * (wanted / share)
    return replace(batches, target=target)
