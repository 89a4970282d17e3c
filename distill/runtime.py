"""Score cases with a bundle: numpy and onnxruntime, no torch.

One case goes ``prepare`` -> ``assess`` for any set of transfers; many patients go through
:meth:`StudentRuntime.score`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.special import expit

from distill.bundle import (
    CALIBRATION,
    PREPROCESS,
    WEIGHTS,
    Bundle,
    Precision,
    known_precision,
    sha256_of,
)
from distill.calibrate import Calibration, disagreement
from distill.cautions import NO_RANGES, cautions, outside_range
from distill.contributions import contributions, without_each
from distill.errors import BundleError, FeatureError
from distill.preprocess import TablePreprocessor
from distill.session import Graph, open_student
from distill.table import RawTable, TableSchema, raw_row, refuse_unknown
from distill.temporal import TEMPORAL, TimeScaler, gaps_of
from distill.transfers import BASE_MODALITY, Transfer

if TYPE_CHECKING:
    import pandas as pd

EXAMPLE_COLUMNS = 3
SCORE_CELLS = 4_000_000
"""Patients x sets x tokens in one call, so that memory stays near 100 MB."""


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """One patient's features, ready for any evidence set.

    Attributes:
        present: modalities that came with the case, clinical first.
        quality: share of filled cells of each present modality, 0 to 1.
        x: preprocessed features, and a row of times where the bundle takes any.
        cautions: what is unusual about the values; names features, never a value.
        outside: what :func:`distill.cautions.outside_range` says of each present modality.
    """

    present: tuple[str, ...]
    quality: Mapping[str, float]
    x: Float32[np.ndarray, "1 inputs features"]
    cautions: tuple[str, ...] = ()
    outside: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What the student says of one case under one evidence set.

    Attributes:
        probability: calibrated probability of the positive class.
        logit: its log-odds.
        disagreement: standard deviation of the log-odds between the tokens of the set.
        processed: modalities that were looked at.
        missing: modalities of the bundle that the case does not have.
        token_logit: what each token says by itself, uncalibrated log-odds.
        attention: share of attention on each token; the rest is on the absent token.
        conformal_set: the classes, by name, that cannot be ruled out at ``conformal_level``; both
            where the evidence does not decide, none where it is unlike either class.
        conformal_level: share of held-out patients of each class whose set held their class; None
            for a bundle without thresholds, which rules nothing out.
        contributions: by processed modality, the change of the calibrated log-odds that leaving
            it and its bridges out would undo; for the only one, against knowing nothing.
    """

    probability: float
    logit: float
    disagreement: float
    processed: tuple[str, ...]
    missing: tuple[str, ...]
    token_logit: Mapping[str, float]
    attention: Mapping[str, float]
    conformal_set: tuple[str, ...]
    conformal_level: float | None
    contributions: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Calibrated log-odds of many patients under many sets, and the tokens' disagreement."""

    logit: Float64[np.ndarray, "rows sets"]
    disagreement: Float64[np.ndarray, "rows sets"]


@dataclass(frozen=True, kw_only=True)
class StudentRuntime:
    """A bundle opened for serving; safe to share between threads."""

    bundle: Bundle
    modalities: tuple[str, ...]
    transfers: tuple[Transfer, ...]
    preprocessors: tuple[TablePreprocessor, ...]
    calibration: Calibration
    session: Graph
    n_features: int
    times: TimeScaler | None = None
    precision: Precision = "fp32"

    @classmethod
    def open(cls, path: Path, *, precision: str | None = None) -> StudentRuntime:
        """Verify the bundle and load its student.

        Args:
            path: the bundle's folder.
            precision: ``fp32`` or ``int8``; by default the one that its training chose.

        Raises:
            BundleError: if the bundle is incomplete, altered or not readable, or has no student
                of that precision.
        """
        bundle = Bundle.open(Path(path))
        wanted = bundle.served if precision is None else known_precision(precision)
        return cls.of(bundle, wanted)

    @classmethod
    def of(cls, bundle: Bundle, precision: Precision) -> StudentRuntime:
        """Load a student of a bundle whose files were verified, or written a moment ago.

        Raises:
            BundleError: if the bundle is not readable, or has no student of that precision.
        """
        facts, path = bundle.manifest, bundle.path
        try:
            modalities = tuple(str(m) for m in facts["modalities"])
            transfers = tuple(Transfer.parse(name) for name in facts["transfers"])
            n_features = int(facts["student"]["features"])
            fitted = bundle.json(PREPROCESS)
            tables, times = fitted["modalities"], fitted.get(TEMPORAL)
            preprocessors = tuple(TablePreprocessor.from_json(tables[m]) for m in modalities)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"The bundle at {path} is not readable: {error!r}.") from error
        return cls(
            bundle=bundle,
            modalities=modalities,
            transfers=transfers,
            preprocessors=preprocessors,
            calibration=Calibration.from_json(bundle.json(CALIBRATION)),
            session=open_student(bundle.graph(precision), sha256_of(bundle.file(WEIGHTS))),
            n_features=n_features,
            times=None if times is None else TimeScaler.from_json(times),
            precision=precision,
        )

    @property
    def cohort_name(self) -> str:
        """The cohort that it was trained on."""
        return str(self.bundle.manifest["cohort"])

    @property
    def synthetic(self) -> bool:
        """Whether that cohort is synthetic."""
        return bool(self.bundle.manifest["synthetic"])

    @property
    def bundle_version(self) -> str:
        """Short name of exactly these weights and settings, for records."""
        return str(self.bundle.manifest["version"])

    @property
    def classes(self) -> tuple[str, str]:
        """Names of the negative and the positive class."""
        label: Mapping[str, Any] = self.bundle.manifest["label"]
        return str(label["negative"]), str(label["positive"])

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Modalities, then transfers: the order of a mask."""
        return self.modalities + tuple(t.name for t in self.transfers)

    def schema(self, modality: str) -> TableSchema:
        """The features of a modality by name.

        Raises:
            FeatureError: if the bundle has no such modality.
        """
        if modality not in self.modalities:
            raise FeatureError(
                f"Unknown modality {modality!r}; this bundle takes {', '.join(self.modalities)}."
            )
        return self.preprocessors[self.modalities.index(modality)].schema

    def example(self) -> dict[str, dict[str, object] | None]:
        """A few features of each modality, and all times, as :meth:`prepare` takes them.

        Nobody's own values: numbers are training medians, words are ones that have a feature.
        """
        rows: dict[str, dict[str, object] | None] = {}
        for name, fitted in zip(self.modalities, self.preprocessors):
            numbers = [c for c in fitted.numbers if np.isfinite(c.median)][:EXAMPLE_COLUMNS]
            words = [c for c in fitted.texts if c.words][:EXAMPLE_COLUMNS]
            row: dict[str, object] = {c.name: c.median for c in numbers}
            rows[name] = row | {c.name: c.words[0] for c in words}
        if self.times is not None:
            rows[TEMPORAL] = dict(zip(self.times.names, self.times.scale))
        return rows

    def prepare(
        self,
        features: Mapping[str, Mapping[str, object] | None],
        temporal: Mapping[str, object] | None = None,
    ) -> PreparedCase:
        """Check and preprocess one case's features, by modality and name.

        A modality that is left out, None, or without a single value is missing; so is a feature
        that is left out. No message repeats a value or an unknown name.

        Args:
            features: rows by modality; a bundle that was trained with times takes them here too,
                beside the modalities under ``"temporal"``.
            temporal: the same times by name; a time that is left out or None is not known.

        Raises:
            FeatureError: for an unknown modality, feature or time, a wrong type, a negative time,
                or no clinical data.
        """
        rows = dict(features)
        if temporal is not None:
            rows[TEMPORAL] = temporal
        takes = self.modalities if self.times is None else (*self.modalities, TEMPORAL)
        refuse_unknown(list(rows), takes, "modality")
        gap = self._gap(rows.get(TEMPORAL) or {})
        x = self._inputs(1, gap)
        quality: dict[str, float] = {}
        told: list[str] = []
        outside: dict[str, tuple[int, int] | None] = {}
        if self.times is not None and gap is not None:
            told += self.times.cautions(gap)
        if not all(p.spans_known for p in self.preprocessors):
            told.append(NO_RANGES)
        for j, name in enumerate(self.modalities):
            raw = self._row(name, rows.get(name) or {})
            if not raw.filled()[0]:
                continue
            x[0, j, : len(self.preprocessors[j].selected)] = self.preprocessors[j].transform(raw)[0]
            quality[name] = float(raw.quality()[0])
            told += cautions(name, raw, self.preprocessors[j])
            outside |= {name: outside_range(raw, self.preprocessors[j])}
        if BASE_MODALITY not in quality:
            raise FeatureError(
                f"The case has no {BASE_MODALITY} features; they are always needed. Send at "
                "least one value."
            )
        return PreparedCase(
            present=tuple(quality), quality=quality, x=x, cautions=tuple(told), outside=outside
        )

    def _gap(self, sent: Mapping[str, object]) -> Float64[np.ndarray, "1 columns"] | None:
        return None if self.times is None else self.times.row(sent)

    def _inputs(
        self, patients: int, gap: Float64[np.ndarray, "patients columns"] | None
    ) -> Float32[np.ndarray, "patients inputs features"]:
        """Zeros for the features; behind them the times where the bundle takes any."""
        rows = len(self.modalities) + (self.times is not None)
        x = np.zeros((patients, rows, self.n_features), dtype=np.float32)
        if self.times is not None and gap is not None:
            x[:, -1, : self.times.n_features] = self.times.transform(gap)
        return x

    def _row(self, modality: str, row: Mapping[str, object]) -> RawTable:
        try:
            return raw_row(row, self.schema(modality))
        except FeatureError as error:
            raise FeatureError(f"{modality}: {error}") from error

    def assess(self, case: PreparedCase, transfers_run: Sequence[str] = ()) -> Assessment:
        """Score a case that these transfers were run for; clinical data are always processed.

        Raises:
            FeatureError: if a transfer is unknown or its source is absent.
        """
        mask = self._mask(case, transfers_run)
        names, without = without_each(mask[0], self.modalities, self.transfers)
        # The patient's evidence set and each one without a modality: all sets of one call.
        masks = np.concatenate([mask, without])
        logit, token_logit, attention = self.session.run(None, {"x": case.x, "mask": masks[None]})
        calibrated = self.calibration.apply(logit[0].astype(np.float64), masks)
        scaled = float(calibrated[0])
        inside = [(j, name) for j, name in enumerate(self.tokens) if mask[0, j] > 0]
        return Assessment(
            probability=float(expit(scaled)),
            logit=scaled,
            disagreement=float(disagreement(token_logit, mask)[0, 0]),
            processed=tuple(name for _, name in inside if name in self.modalities),
            missing=tuple(m for m in self.modalities if m not in case.present),
            token_logit={name: float(token_logit[0, j]) for j, name in inside},
            attention={name: float(attention[0, 0, j]) for j, name in inside},
            conformal_set=self._conformal_set(scaled, mask),
            conformal_level=self.calibration.level,
            contributions=contributions(
                scaled, names, calibrated[1:], without, self.calibration.prior_logit
            ),
        )

    def _conformal_set(
        self, logit: float, mask: Float32[np.ndarray, "1 tokens"]
    ) -> tuple[str, ...]:
        inside = self.calibration.members(np.array([logit]), mask)[0]
        return tuple(name for name, stays in zip(self.classes, inside) if stays)

    @cached_property
    def _transfers(self) -> Mapping[str, Transfer]:
        return {t.name: t for t in self.transfers}

    def _mask(
        self, case: PreparedCase, transfers_run: Sequence[str]
    ) -> Float32[np.ndarray, "1 tokens"]:
        known = self._transfers
        inside = {BASE_MODALITY}
        for name in transfers_run:
            if name not in known:
                raise FeatureError(f"Unknown transfer {name!r}; there are {', '.join(known)}.")
            if known[name].source not in case.present:
                raise FeatureError(
                    f"Transfer {name!r} needs {known[name].source}, which this case does not "
                    f"have; it has {', '.join(case.present)}."
                )
            inside |= {name, known[name].source}
        return np.array([[token in inside for token in self.tokens]], dtype=np.float32)

    def gaps(
        self, temporal: pd.DataFrame | None, patients: int
    ) -> Float64[np.ndarray, "patients columns"] | None:
        """The times that the bundle takes, of many patients; NaN where not known.

        Raises:
            FeatureError: if one is negative or infinite.
        """
        return None if self.times is None else gaps_of(temporal, self.times.names, patients)

    def features(
        self,
        tables: Mapping[str, tuple[RawTable, Bool[np.ndarray, " patients"]]],
        patients: int,
        gap: Float64[np.ndarray, "patients columns"] | None = None,
    ) -> Float32[np.ndarray, "patients inputs features"]:
        """Features of many patients.

        Args:
            tables: per modality its raw rows and which patients they belong to, in order.
            patients: number of patients.
            gap: what :meth:`gaps` gave; left out, no time is known.
        """
        x = self._inputs(patients, gap)
        for j, name in enumerate(self.modalities):
            if name in tables:
                raw, having = tables[name]
                part = self.preprocessors[j].transform(raw)
                x[having, j, : part.shape[1]] = part
        return x

    def score(
        self,
        x: Float32[np.ndarray, "rows inputs features"],
        mask: Float32[np.ndarray, "maskrows sets tokens"],
    ) -> Scores:
        """Calibrated log-odds of every patient under every set.

        Args:
            x: preprocessed features.
            mask: the same sets for all (one row), or sets of its own for each patient.
        """
        rows, sets = x.shape[0], mask.shape[1]
        logit, spread = np.empty((rows, sets)), np.empty((rows, sets))
        chunk = max(1, SCORE_CELLS // (sets * mask.shape[2]))
        shared = self.calibration.of_masks(mask[0]) if mask.shape[0] == 1 else None
        for start in range(0, rows, chunk):
            part = slice(start, start + chunk)
            size = x[part].shape[0]
            masks = np.broadcast_to(mask, (size, *mask.shape[1:])) if shared is not None else None
            masks = np.ascontiguousarray(mask[part] if masks is None else masks)
            raw, token = self.session.run(["logit", "token_logit"], {"x": x[part], "mask": masks})
            if shared is not None:
                logit[part], spread[part] = raw / shared, disagreement(token, mask[0])
                continue
            for i in range(size):
                logit[start + i] = raw[i] / self.calibration.of_masks(masks[i])
                spread[start + i] = disagreement(token[i : i + 1], masks[i])[0]
        return Scores(logit=logit, disagreement=spread)
