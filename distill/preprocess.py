"""From raw cells to the student's features: fitted on training rows, saved as JSON.

Numbers are made less skewed where they are skewed, imputed by the median and scaled; words become
one-hot columns with one more for unknown or rare ones; tables of 0/1 mutations get their burden as
a derived feature. Nothing here looks at labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int
from scipy.special import ndtri

from distill.errors import BundleError
from distill.families import Family, families_of
from distill.table import RawTable, TableSchema

IDENTITY, LOG, SIGNED_LOG, QUANTILE = "identity", "log1p", "signed_log1p", "quantile"
BURDEN = "burden"
UNKNOWN = "<unknown>"
SKEWED = 1.5
"""Absolute skewness above which a column is transformed."""
CLIP = 4.0
"""Scaled values beyond this say 'extreme', no more: hospitals differ in their outliers."""
N_KNOTS = 33
MIN_BINARY_COLUMNS = 10


@dataclass(frozen=True, kw_only=True)
class NumberColumn:
    """How one numeric column is treated; ``mean`` and ``scale`` act after the transform.

    ``span`` is the smallest and the largest training value, None where no patient had one.
    """

    name: str
    transform: str
    median: float
    mean: float
    scale: float
    knots: tuple[tuple[float, float], ...] = ()
    span: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class TextColumn:
    """The words of one column that get a feature of their own; every other is unknown."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TablePreprocessor:
    """Turns raw rows of one modality into a float32 matrix.

    Attributes:
        schema: the columns it was fitted on and asks for.
        numbers: one entry a numeric column, in the schema's order.
        texts: one entry a text column, in the schema's order.
        burden: mean and scale of log1p(number of ones), for tables of 0/1 cells.
        selected: which of the encoded features are kept (see :attr:`encoded_names`).
        spans_known: whether the columns' spans are; bundles of earlier versions lack them.
        families: gene families of 0/1 tables, a feature each; earlier versions lack them.
    """

    schema: TableSchema
    numbers: tuple[NumberColumn, ...]
    texts: tuple[TextColumn, ...]
    burden: tuple[float, float] | None
    selected: tuple[int, ...]
    spans_known: bool = True
    families: tuple[Family, ...] = ()

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """Every feature before selection: numbers, words, derived."""
        names = [column.name for column in self.numbers]
        names += [f"{c.name}={word}" for c in self.texts for word in (*c.words, UNKNOWN)]
        names += [family.feature for family in self.families]
        return (*names, BURDEN) if self.burden is not None else tuple(names)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that :meth:`transform` gives, in order."""
        names = self.encoded_names
        return tuple(names[i] for i in self.selected)

    @property
    def reads_numbers(self) -> Bool[np.ndarray, " numbers"]:
        """Which numeric columns have a part in the features that are kept."""
        kept = np.isin(np.arange(len(self.numbers)), self.selected)
        derived = self.burden is not None and len(self.encoded_names) - 1 in self.selected
        first = len(self.numbers) + len(self._word_index())
        for at, family in enumerate(self.families, start=first):
            if at in self.selected:
                kept[list(family.columns)] = True
        return np.asarray(kept | derived)

    @property
    def reads_texts(self) -> Bool[np.ndarray, " texts"]:
        """Which text columns have a part in the features that are kept."""
        owner = [column for column, _ in self._word_index()]
        kept = {i - len(self.numbers) for i in self.selected}
        having = {column for i, column in enumerate(owner) if i in kept}
        return np.array([j in having for j in range(len(self.texts))], dtype=bool)

    def select(self, keep: Sequence[int]) -> TablePreprocessor:
        """The same preprocessing with only these encoded features kept."""
        return replace(self, selected=tuple(int(i) for i in keep))

    def transform(self, raw: RawTable) -> Float32[np.ndarray, "rows features"]:
        """Features of these patients, float32, scaled, without missing values."""
        out = np.zeros((len(raw), len(self.selected)), dtype=np.float64)
        n_numbers = len(self.numbers)
        plain = [(at, i) for at, i in enumerate(self.selected) if i < n_numbers]
        if plain:
            at, which = (np.array(part, dtype=np.int64) for part in zip(*plain))
            out[:, at] = self._scaled(raw.numbers, which)
        words = self._word_index()
        for column, i in enumerate(self.selected):
            if i >= n_numbers:
                out[:, column] = self._extra(raw, words, i - n_numbers)
        return out.astype(np.float32)

    def _scaled(
        self, numbers: Float64[np.ndarray, "rows numbers"], which: Int[np.ndarray, " kept"]
    ) -> Float64[np.ndarray, "rows kept"]:
        columns = [self.numbers[i] for i in which]
        values = numbers[:, which]
        median = np.array([c.median for c in columns])
        values = np.where(np.isfinite(values), values, median)
        for j, column in enumerate(columns):
            if column.transform != IDENTITY:
                values[:, j] = _apply(column, values[:, j])
        mean = np.array([c.mean for c in columns])
        scale = np.array([c.scale for c in columns])
        return np.asarray(np.clip((values - mean) / scale, -CLIP, CLIP))

    def _word_index(self) -> list[tuple[int, str]]:
        return [(j, word) for j, c in enumerate(self.texts) for word in (*c.words, UNKNOWN)]

    def _extra(
        self, raw: RawTable, words: Sequence[tuple[int, str]], i: int
    ) -> Float64[np.ndarray, " rows"]:
        if i < len(words):
            column, word = words[i]
            cells = raw.texts[:, column]
            if word == UNKNOWN:
                known = self.texts[column].words
                return np.array([cell not in known for cell in cells], dtype=np.float64)
            return np.asarray(cells == word, dtype=np.float64)
        if i < len(words) + len(self.families):
            scaled = self.families[i - len(words)].scaled(raw.numbers)
            return np.asarray(np.clip(scaled, -CLIP, CLIP))
        mean, scale = self.burden or (0.0, 1.0)
        return np.asarray(np.clip((burden(raw.numbers) - mean) / scale, -CLIP, CLIP))

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``preprocess.json``."""
        return {
            "numbers": [
                {"name": c.name, "transform": c.transform, "median": c.median, "mean": c.mean,
                 "scale": c.scale, "knots": [list(k) for k in c.knots]}
                for c in self.numbers
            ],
            "texts": [{"name": c.name, "words": list(c.words)} for c in self.texts],
            "burden": list(self.burden) if self.burden else None,
            "selected": list(self.selected),
            # Beside the columns, so that a reader that does not know of it finds what it expects.
            "spans": [list(c.span) if c.span else None for c in self.numbers],
            "families": [family.to_json() for family in self.families],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TablePreprocessor:
        """Rebuild what :meth:`to_json` gave.

        Raises:
            BundleError: if parts are missing or of the wrong type.
        """
        try:
            spans = data.get("spans")
            numbers = tuple(
                NumberColumn(
                    **{**c, "knots": tuple((k[0], k[1]) for k in c["knots"])},
                    span=(float(span[0]), float(span[1])) if span else None,
                )
                for c, span in zip(data["numbers"], spans or [None] * len(data["numbers"]))
            )
            texts = tuple(
                TextColumn(name=c["name"], words=tuple(c["words"])) for c in data["texts"]
            )
            scaling = data["burden"]
            return cls(
                schema=TableSchema(
                    numbers=tuple(c.name for c in numbers), texts=tuple(c.name for c in texts)
                ),
                numbers=numbers,
                texts=texts,
                burden=(float(scaling[0]), float(scaling[1])) if scaling else None,
                selected=tuple(int(i) for i in data["selected"]),
                spans_known=spans is not None,
                families=tuple(Family.from_json(f) for f in data.get("families", [])),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise BundleError(f"preprocess.json is not readable: {error}.") from error


def burden(numbers: Float64[np.ndarray, "rows numbers"]) -> Float64[np.ndarray, " rows"]:
    """Mutation burden: log1p of how many cells are 1."""
    return np.asarray(np.log1p(np.nansum(numbers, axis=1)))


def _apply(column: NumberColumn, v: Float64[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    if column.transform == LOG:
        return np.asarray(np.log1p(np.maximum(v, 0.0)))
    if column.transform == SIGNED_LOG:
        return np.asarray(np.sign(v) * np.log1p(np.abs(v)))
    if column.transform == QUANTILE:
        at, score = zip(*column.knots)
        return np.asarray(np.interp(v, at, score))
    return v


def _skewness(v: Float64[np.ndarray, " rows"]) -> float:
    spread = float(v.std())
    return float(((v - v.mean()) ** 3).mean() / spread**3) if spread > 1e-9 else 0.0


def _knots(v: Float64[np.ndarray, " rows"]) -> tuple[tuple[float, float], ...]:
    """Quantiles against normal scores; equal quantiles share their mean score."""
    levels = (np.arange(N_KNOTS) + 0.5) / N_KNOTS
    at, back = np.unique(np.quantile(v, levels), return_inverse=True)
    score = np.bincount(back, weights=ndtri(levels)) / np.bincount(back)
    return tuple((float(a), float(s)) for a, s in zip(at, score))


def _choose_transform(v: Float64[np.ndarray, " rows"]) -> str:
    if np.unique(v).size <= 2 or abs(_skewness(v)) <= SKEWED:
        return IDENTITY
    name = LOG if v.min() >= 0 else SIGNED_LOG
    probe = NumberColumn(name="", transform=name, median=0.0, mean=0.0, scale=1.0)
    return name if abs(_skewness(_apply(probe, v))) <= SKEWED else QUANTILE


def _fit_number(name: str, values: Float64[np.ndarray, " rows"]) -> NumberColumn:
    v = values[np.isfinite(values)]
    if v.size == 0:
        return NumberColumn(name=name, transform=IDENTITY, median=0.0, mean=0.0, scale=1.0)
    transform = _choose_transform(v)
    column = NumberColumn(
        name=name, transform=transform, median=float(np.median(v)), mean=0.0, scale=1.0,
        knots=_knots(v) if transform == QUANTILE else (), span=(float(v.min()), float(v.max())),
    )  # fmt: skip
    filled = _apply(column, np.where(np.isfinite(values), values, column.median))
    spread = float(filled.std())
    return replace(column, mean=float(filled.mean()), scale=spread if spread > 1e-9 else 1.0)


def _fit_text(name: str, cells: Sequence[str], least: int) -> TextColumn:
    words, counts = np.unique([c for c in cells if c], return_counts=True)
    return TextColumn(name=name, words=tuple(str(w) for w, n in zip(words, counts) if n >= least))


def _is_binary(numbers: Float64[np.ndarray, "rows numbers"]) -> bool:
    cells: Bool[np.ndarray, "rows numbers"] = (numbers == 0) | (numbers == 1) | np.isnan(numbers)
    return numbers.shape[1] >= MIN_BINARY_COLUMNS and bool(cells.all())


def fit_preprocessor(raw: RawTable) -> TablePreprocessor:
    """Fit on these rows (the training rows), keeping every encoded feature.

    Text values need at least 1 % of the rows, and five patients, to get a feature of their own.
    """
    least = max(5, len(raw) // 100)
    scaling, families = None, tuple[Family, ...]()
    numbers = tuple(
        _fit_number(name, raw.numbers[:, j]) for j, name in enumerate(raw.schema.numbers)
    )
    if _is_binary(raw.numbers):
        # A mutation that no training patient has is rare, not out of range.
        numbers = tuple(replace(column, span=(0.0, 1.0)) for column in numbers)
        total = burden(raw.numbers)
        spread = float(total.std())
        scaling = (float(total.mean()), spread if spread > 1e-9 else 1.0)
        families = families_of(raw.schema.numbers, raw.numbers)
    fitted = TablePreprocessor(
        schema=raw.schema,
        numbers=numbers,
        texts=tuple(
            _fit_text(name, list(raw.texts[:, j]), least) for j, name in enumerate(raw.schema.texts)
        ),
        burden=scaling,
        selected=(),
        families=families,
    )
    return fitted.select(range(len(fitted.encoded_names)))
