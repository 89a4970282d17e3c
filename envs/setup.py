"""From an environment's arguments to what its sessions run on; every argument is checked here."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from distill.evidence import EvidenceTable
from envs.catalogue import ActionCatalogue
from envs.config import Rules, SessionConfig, check_rules, resolve_config
from envs.errors import GainError, LeakWarning, SessionError
from envs.gain import GainModel
from envs.observation import ObservationLayout
from envs.outlook import Outlook, outlook_of
from envs.reward import CreditBasis, credit_basis
from envs.session import EVAL, Grid, Traces, class_counts, resolve_grid
from envs.sight import Sight
from envs.tables import MAX_KWH, PatientTables, patient_tables


@dataclass(frozen=True, kw_only=True)
class ReviewSetup:
    """All that is fixed before the first reset; shared by every sub-environment.

    Attributes:
        config: the session's settings.
        catalogue: the actions.
        layout: the observation's fields.
        gain_model: predicted AUC gains, from training rows only.
        tables: the pool's patients.
        grid: the hours of the trace that sessions may use.
        outlook: best next step of each patient in each evidence set.
        n_pos: positives in every session.
        n_neg: negatives in every session.
        cohort: name of the cohort.
        synthetic: whether the patients are synthetic.
        rules: how cases come up.
    """

    config: SessionConfig
    catalogue: ActionCatalogue
    layout: ObservationLayout
    gain_model: GainModel
    tables: PatientTables
    grid: Grid
    outlook: Outlook
    n_pos: int
    n_neg: int
    cohort: str
    synthetic: bool
    rules: Rules = "sequential"

    @property
    def price_per_g(self) -> float:
        """Reward taken for one gram of CO2e; 0 where the mode has no price."""
        return 1.0 / self.config.g_per_auc if self.config.charges_price else 0.0

    @property
    def max_invalid(self) -> int:
        """Invalid actions in one visit after which the case is finalised."""
        return self.catalogue.n_transfers + 4

    @property
    def has_setup(self) -> bool:
        """Whether starting a pipeline's run takes energy of its own."""
        return self.rules == "worklist" and self.config.setup_factor > 0.0

    @cached_property
    def credit_basis(self) -> CreditBasis:
        """What rewards are worked out from."""
        return credit_basis(self.config.reward, self.tables, self.n_pos)

    @cached_property
    def sight(self) -> Sight:
        """What is seen of each patient in each evidence set."""
        return Sight(self.tables, self.gain_model, self.layout)

    @cached_property
    def setup_kwh(self) -> Float64[np.ndarray, "sets transfers"]:
        """Energy of starting the run that a transfer in a set needs; 0 where it needs none."""
        start = self.outlook.pipeline_kwh[self.outlook.source] * self.config.setup_factor
        return np.asarray(self.outlook.is_new * start)


def build_setup(
    *,
    evidence: EvidenceTable | str | Path,
    folds: Sequence[int] | None = None,
    fit_folds: Sequence[int] | None = None,
    trace: Traces = None,
    period: str = "train",
    config: SessionConfig | None = None,
    preset: str | None = None,
    rules: str = "sequential",
    gain_model: GainModel | str | Path | None = None,
    **settings: object,
) -> ReviewSetup:
    """Resolve and check the arguments that all environments share.

    Args:
        evidence: the evidence table, or its file (``BUNDLE/evidence.npz``).
        folds: folds whose patients are reviewed; None for all.
        fit_folds: folds whose rows the gain model is fitted on; None for ``folds``. In the
            ``eval`` period they must be others.
        trace: carbon intensity, its file, several of these (each session draws one), or None for
            a synthetic grid.
        period: ``train`` (first 70 % of the trace), ``eval`` (the rest) or ``all``.
        config: settings; single fields may be given as keywords instead or on top.
        preset: name of shipped settings, instead of ``config``.
        rules: ``oneshot``, ``sequential`` or ``worklist``.
        gain_model: a fitted gain model or its file; None to fit one on ``fit_folds``.
        settings: fields of :class:`SessionConfig`.

    Raises:
        EnvsError: if an argument is unknown or cannot be used; the message says what to do.
        BundleError: if the evidence cannot be read.
        TraceError: if the trace cannot be read.

    Warns:
        LeakWarning: if ``period`` is ``eval`` and the gains are fitted on ``folds`` by default.
    """
    resolved, checked_rules = resolve_config(config, settings, preset), check_rules(rules)
    table = evidence if isinstance(evidence, EvidenceTable) else EvidenceTable.load(Path(evidence))
    if not table.transfers:
        raise SessionError(
            f"The evidence of {table.cohort!r} has one modality and no transfer: nothing to decide."
        )
    layout = ObservationLayout(table.modalities, table.transfers)
    tables = patient_tables(table, _rows_of(table, folds), layout)
    n_pos, n_neg = class_counts(tables, resolved)
    if gain_model is None:
        rows = _rows_of(table, folds if fit_folds is None else fit_folds)
        _check_apart(table, rows, _rows_of(table, folds), period, asked=fit_folds is not None)
        gain_model = GainModel.fit(table, rows, n_pos, n_neg)
    elif not isinstance(gain_model, GainModel):
        gain_model = GainModel.load(Path(gain_model))
    _check_gain_model(gain_model, table)
    setup = ReviewSetup(
        config=resolved,
        catalogue=ActionCatalogue(table.transfers),
        layout=layout,
        gain_model=gain_model,
        tables=tables,
        grid=resolve_grid(trace, period, resolved, checked_rules),
        outlook=outlook_of(table, tables, gain_model),
        n_pos=n_pos,
        n_neg=n_neg,
        cohort=table.cohort,
        synthetic=table.synthetic,
        rules=checked_rules,
    )
    _check_energies(setup)
    return setup


def _check_energies(setup: ReviewSetup) -> None:
    most = float((setup.tables.step_kwh + setup.setup_kwh).max()) if setup.has_setup else 0.0
    if most >= MAX_KWH:
        raise SessionError(
            f"Starting a run and a case together take up to {most:g} kWh; an observation shows "
            f"less than {MAX_KWH:g}. Lower setup_factor, {setup.config.setup_factor:g}."
        )


def _rows_of(evidence: EvidenceTable, folds: Sequence[int] | None) -> Int64[np.ndarray, " rows"]:
    if folds is None:
        return np.arange(evidence.n_patients)
    have = [int(f) for f in np.unique(evidence.fold)]
    unknown = [f for f in folds if f not in have]
    if unknown or not len(folds):
        raise SessionError(
            f"Folds {list(folds)} were asked for; the evidence of {evidence.cohort!r} has {have}."
        )
    return np.flatnonzero(np.isin(evidence.fold, list(folds)))


def _check_apart(
    evidence: EvidenceTable,
    fitted: Int64[np.ndarray, " fitted"],
    reviewed: Int64[np.ndarray, " reviewed"],
    period: str,
    *,
    asked: bool,
) -> None:
    """In evaluation, predicted gains fitted on the reviewed patients give their labels away."""
    both = np.intersect1d(evidence.fold[fitted], evidence.fold[reviewed]).tolist()
    if period != EVAL or not both:
        return
    message = (
        f"In the {EVAL} period, the predicted gains would be fitted on the labels of the patients "
        f"reviewed, those of folds {both}. Give other folds as fit_folds, or a gain_model."
    )
    if asked:
        raise SessionError(message)
    warnings.warn(message, LeakWarning, stacklevel=3)


def _check_gain_model(model: GainModel, evidence: EvidenceTable) -> None:
    names = tuple(t.name for t in evidence.transfers)
    if model.transfers != names or len(model.table) != len(evidence.sets.bits):
        raise GainError(
            f"The gain model speaks of {', '.join(model.transfers)}; the evidence of "
            f"{evidence.cohort!r} has {', '.join(names)}. Fit it on this evidence."
        )
