"""Teachers crossfitted by fold: nothing that scores a patient has seen the patient's fold.

Every fit is named by the folds it has *not* seen. To get held-out predictions for the rows that a
fit of ``excluded`` may use, further folds are excluded one group at a time; so the fit that
excludes {1, 2} serves fold 2 for the model of fold 1 and fold 1 for the model of fold 2, and is
made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int, Int8, Int16
from scipy.special import expit

from distill.config import TrainConfig
from distill.errors import TrainingError
from distill.loop import Attend, Unattended
from distill.privileged import held_out_probability, plain_log_odds, softened
from distill.table import RawTable
from distill.teacher import CANDIDATES, Teacher, TeacherFit, choose, fit_teacher

Folds = frozenset[int]
MAX_INNER = 5
MIN_FOLDS = 4


@dataclass(frozen=True, kw_only=True)
class ModalityRows:
    """A modality's raw values and the cohort's rows that they belong to."""

    name: str
    raw: RawTable
    row: Int[np.ndarray, " having"]


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """A cohort as arrays: what training may see.

    Attributes:
        modalities: inference modalities, clinical first.
        privileged: modalities that only teach.
        tables: values of both kinds.
        label: 0 or 1 per patient.
        fold: fold per patient; no hospital is in two folds.
        label_kept: whose label training may see; None: everyone's (see :attr:`labelled`).
        times: temporal columns that the student's gate is given; none, no gate.
        gap: their values, NaN where not known; None without any.
    """

    modalities: tuple[str, ...]
    privileged: tuple[str, ...]
    tables: Mapping[str, ModalityRows]
    label: Int8[np.ndarray, " patients"]
    fold: Int16[np.ndarray, " patients"]
    label_kept: Bool[np.ndarray, " patients"] | None = None
    times: tuple[str, ...] = ()
    gap: Float64[np.ndarray, "patients columns"] | None = None

    @property
    def labelled(self) -> Bool[np.ndarray, " patients"]:
        """Whose label training may see; the others are unlabelled, though paired, patients.

        A label that is not kept reaches no weight, no temperature and no choice. It serves only to
        score a patient of a held-out hospital.
        """
        if self.label_kept is None:
            return np.ones(self.label.size, dtype=bool)
        return self.label_kept

    @property
    def folds(self) -> tuple[int, ...]:
        """The fold numbers, ascending."""
        return tuple(int(f) for f in np.unique(self.fold))

    def rows(self, excluded: Folds) -> Bool[np.ndarray, " patients"]:
        """Patients outside the excluded folds."""
        return ~np.isin(self.fold, sorted(excluded))

    def present(self) -> Bool[np.ndarray, "patients modalities"]:
        """Who has which inference modality."""
        out = np.zeros((self.label.size, len(self.modalities)), dtype=bool)
        for j, name in enumerate(self.modalities):
            out[self.tables[name].row, j] = True
        return out


def seed_for(config: TrainConfig, purpose: int, excluded: Iterable[int]) -> int:
    """A seed that depends on the run's seed, the purpose and the folds left out, nothing else.

    So a fit that excludes a fold is bit for bit the same whatever that fold holds.
    """
    entropy = [config.seed, purpose, *(fold + 1 for fold in sorted(excluded))]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] & 0x7FFFFFFF)


def inner_groups(folds: Iterable[int]) -> tuple[Folds, ...]:
    """The remaining folds, each to be held out once; many folds are held out in groups."""
    ordered = sorted(folds)
    n = min(MAX_INNER, len(ordered))
    return tuple(frozenset(ordered[i::n]) for i in range(n))


def check_folds(folds: tuple[int, ...]) -> None:
    """Refuse too few folds.

    Raises:
        TrainingError: if there are fewer than four.
    """
    if len(folds) < MIN_FOLDS:
        raise TrainingError(
            f"The cohort has {len(folds)} folds; crossfitting by hospital needs at least "
            f"{MIN_FOLDS}. Split the hospitals into more folds."
        )


@dataclass(kw_only=True)
class TeacherLattice:
    """Makes and remembers teachers for every set of excluded folds that is asked for."""

    data: TrainingData
    config: TrainConfig
    on_fit: Callable[[str], None] = lambda _: None
    attend: Attend = lambda _: Unattended()
    _fits: dict[tuple[str, Folds], TeacherFit] = field(default_factory=dict)
    _teachers: dict[tuple[str, Folds], tuple[Teacher, Float64[np.ndarray, " patients"]]] = field(
        default_factory=dict
    )

    _targets: dict[Folds, Float64[np.ndarray, " patients"]] = field(default_factory=dict)

    def target(self, excluded: Folds) -> Float64[np.ndarray, " patients"]:
        """What inference teachers are fitted on: labels softened by the privileged modalities.

        Where a label is not kept, the privileged teachers' log-odds added up stand in for it: they
        label the patients whom nobody else does. NaN for rows outside the fit and for unlabelled
        ones that no privileged modality knows; neither takes part.
        """
        if excluded not in self._targets:
            data = self.data
            seen = data.rows(excluded) & data.labelled
            voices = np.full((data.label.size, len(data.privileged)), np.nan)
            for j, name in enumerate(data.privileged):
                table = data.tables[name]
                inside = np.flatnonzero(seen[table.row])
                rows = table.row[inside]
                voices[rows, j] = held_out_probability(
                    table.raw.take(inside), data.label[rows].astype(np.int64), data.fold[rows]
                )
            out = self._stand_ins(excluded)
            out[seen] = softened(data.label[seen].astype(np.float64), voices[seen])
            self._targets[excluded] = out
        return self._targets[excluded]

    def _stand_ins(self, excluded: Folds) -> Float64[np.ndarray, " patients"]:
        """Probability of unlabelled rows by all privileged modalities together; NaN for others."""
        data = self.data
        voices = np.full((data.label.size, len(data.privileged)), np.nan)
        if data.labelled.all():
            return np.full(data.label.size, np.nan)
        for j, name in enumerate(data.privileged):
            table = data.tables[name]
            inside = np.flatnonzero(data.rows(excluded)[table.row])
            rows = table.row[inside]
            voices[rows, j] = plain_log_odds(
                table.raw.take(inside), data.label[rows].astype(np.int64), data.labelled[rows]
            )
        heard = np.isfinite(voices).any(axis=1)
        return np.where(heard, expit(np.nansum(voices, axis=1)), np.nan)

    def fit(self, modality: str, excluded: Folds) -> TeacherFit:
        """Candidates fitted on the patients outside ``excluded`` who have the modality.

        Inference teachers learn :meth:`target`, so from unlabelled patients too where a privileged
        modality labels them; privileged ones learn labels. Preprocessing looks at no label, so it
        is fitted on everyone.
        """
        key = (modality, excluded)
        if key not in self._fits:
            data, table = self.data, self.data.tables[modality]
            seen = data.rows(excluded)
            everyone = np.flatnonzero(seen[table.row])
            hard = modality in data.privileged or not data.privileged
            target = None if hard else self.target(excluded)
            taught = seen & data.labelled if target is None else np.isfinite(target)
            inside = np.flatnonzero(taught[table.row])
            rows = table.row[inside]
            label = data.label[rows].astype(np.int64)
            if target is not None:
                label = np.where(data.labelled[rows], label, target[rows] > 0.5)
            names = (*data.modalities, *data.privileged)
            self._fits[key] = fit_teacher(
                modality, table.raw.take(inside), label, self.config,
                seed_for(self.config, 10 + names.index(modality), excluded),
                target=None if target is None else target[rows],
                everyone=table.raw.take(everyone),
            )  # fmt: skip
            self.on_fit(f"teacher of {modality}")
        return self._fits[key]

    def held_out(
        self, modality: str, excluded: Folds
    ) -> dict[str, Float64[np.ndarray, " patients"]]:
        """Every candidate's log-odds for the rows outside ``excluded``, none of them fitted on.

        Rows that the fit has learnt from are held out with their fold. Where unlabelled ones were
        never fitted on, the fit of all labelled rows speaks plainly. NaN for everyone else.
        """
        data, table = self.data, self.data.tables[modality]
        out = {name: np.full(data.label.size, np.nan) for name in CANDIDATES}
        taught = data.labelled
        if data.privileged and modality in data.modalities:
            taught = np.ones_like(data.labelled)
        parts = [
            (excluded | group, np.isin(data.fold, sorted(group)) & taught)
            for group in inner_groups(set(data.folds) - excluded)
        ]
        for unseen, rows in (*parts, (excluded, data.rows(excluded) & ~taught)):
            inside = np.flatnonzero(rows[table.row])
            if not inside.size:
                continue
            scored = self.fit(modality, unseen).logits(table.raw.take(inside))
            for name in CANDIDATES:
                out[name][table.row[inside]] = scored[name]
        return out

    def teacher(
        self, modality: str, excluded: Folds
    ) -> tuple[Teacher, Float64[np.ndarray, " patients"]]:
        """The frozen teacher of these folds, and its calibrated held-out log-odds (NaN: none).

        The log-odds cover exactly the patients outside ``excluded`` who have the modality.
        """
        key = (modality, excluded)
        if key not in self._teachers:
            held_out = self.held_out(modality, excluded)
            seen = np.isfinite(held_out[CANDIDATES[0]]) & self.data.labelled
            choice, temperature = choose(
                {name: z[seen] for name, z in held_out.items()},
                self.data.label[seen].astype(np.int64),
            )
            teacher = Teacher(
                modality=modality, fit=self.fit(modality, excluded), choice=choice,
                temperature=temperature,
            )  # fmt: skip
            self._teachers[key] = (teacher, held_out[choice] / temperature)
        return self._teachers[key]
