"""From raw cells to the student's features: fitted on training rows, saved as JSON.

Numbers are made less skewed where they are skewed, imputed by the median and scaled; words become
one-hot columns with one more for unknown or rare ones; tables of 0/1 mutations get their burden as
a derived feature. Nothing here looks at labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
class _Words:
    """Where the words of one text column are counted; None where no feature of theirs is kept."""

    column: int
    feature: Mapping[str, int | None]
    unknown: int | None


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Which features come from where.

    Those that are numbers and the columns that they come from, text columns that have a part in
    the features, gene families, and the burden if it is kept.
    """

    at: Int[np.ndarray, " kept"]
    which: Int[np.ndarray, " kept"]
    columns: tuple[NumberColumn, ...]
    words: tuple[_Words, ...]
    families: tuple[tuple[int, Family], ...]
    burden: int | None

    @cached_property
    def _constants(self) -> Float64[np.ndarray, "3 kept"]:
        rows = [(c.median, c.mean, c.scale) for c in self.columns]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 3).T

    @cached_property
    def _shaped(self) -> tuple[tuple[str, Int[np.ndarray, " columns"]], ...]:
        """The columns of each transform that works on many at once."""
        kinds = [c.transform for c in self.columns]
        return tuple(
            (kind, np.array([j for j, k in enumerate(kinds) if k == kind], dtype=np.int64))
            for kind in (LOG, SIGNED_LOG)
            if kind in kinds
        )

    @cached_property
    def _curves(self) -> tuple[tuple[int, Float64[np.ndarray, "2 knots"]], ...]:
        return tuple(
            (j, np.array(c.knots, dtype=np.float64).T)
            for j, c in enumerate(self.columns)
            if c.transform == QUANTILE
        )

    @cached_property
    def _members(self) -> Float64[np.ndarray, "numbers families"]:
        """1 where a numeric column is in a family."""
        last = max(max(family.columns) for _, family in self.families)
        out = np.zeros((last + 1, len(self.families)))
        for j, (_, family) in enumerate(self.families):
            out[list(family.columns), j] = 1.0
        return out

    @cached_property
    def _family_scaling(self) -> Float64[np.ndarray, "2 families"]:
        rows = [(family.mean, family.scale) for _, family in self.families]
        return np.array(rows, dtype=np.float64).T

    def counted(
        self, numbers: Float64[np.ndarray, "rows numbers"]
    ) -> Float64[np.ndarray, "rows families"]:
        """All families at once, as :meth:`distill.families.Family.scaled` counts each."""
        members = self._members
        cells = numbers[:, : members.shape[0]]
        count = np.log1p(np.where(np.isnan(cells), 0.0, cells) @ members)
        mean, scale = self._family_scaling
        return np.asarray(np.clip((count - mean) / scale, -CLIP, CLIP))

    def scaled(
        self, numbers: Float64[np.ndarray, "rows numbers"]
    ) -> Float64[np.ndarray, "rows kept"]:
        """Imputed, transformed, scaled and clipped."""
        median, mean, scale = self._constants
        values = numbers[:, self.which]
        values = np.where(np.isfinite(values), values, median)
        for kind, columns in self._shaped:
            values[:, columns] = _unskewed(kind, values[:, columns])
        for j, curve in self._curves:
            values[:, j] = np.interp(values[:, j], curve[0], curve[1])
        return np.asarray(np.clip((values - mean) / scale, -CLIP, CLIP))


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

    @cached_property
    def reads_numbers(self) -> Bool[np.ndarray, " numbers"]:
        """Which numeric columns have a part in the features that are kept."""
        kept = np.isin(np.arange(len(self.numbers)), self.selected)
        derived = self.burden is not None and len(self.encoded_names) - 1 in self.selected
        first = len(self.numbers) + len(self._word_index())
        for at, family in enumerate(self.families, start=first):
            if at in self.selected:
                kept[list(family.columns)] = True
        return np.asarray(kept | derived)

    @cached_property
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
        plan = self._plan
        if plan.at.size:
            out[:, plan.at] = plan.scaled(raw.numbers)
        for words in plan.words:
            for row, cell in enumerate(raw.texts[:, words.column]):
                feature = words.feature.get(cell, words.unknown)
                if feature is not None:
                    out[row, feature] = 1.0
        if plan.families:
            out[:, [feature for feature, _ in plan.families]] = plan.counted(raw.numbers)
        if plan.burden is not None:
            mean, scale = self.burden or (0.0, 1.0)
            out[:, plan.burden] = np.clip((burden(raw.numbers) - mean) / scale, -CLIP, CLIP)
        return out.astype(np.float32)

    @cached_property
    def _plan(self) -> _Plan:
        """What :meth:`transform` does, looked up once: a case has to be prepared in no time."""
        n_numbers, words = len(self.numbers), self._word_index()
        first_family = n_numbers + len(words)
        place = {i: at for at, i in enumerate(self.selected)}
        plain = [i for i in self.selected if i < n_numbers]
        by_column = {}
        for j, column in enumerate(self.texts):
            at = {w: place.get(n_numbers + k) for k, (c, w) in enumerate(words) if c == j}
            unknown = at.pop(UNKNOWN)
            if unknown is not None or any(feature is not None for feature in at.values()):
                by_column[column.name] = _Words(column=j, feature=at, unknown=unknown)
        families = enumerate(self.families, start=first_family)
        return _Plan(
            at=np.array([place[i] for i in plain], dtype=np.int64),
            which=np.array(plain, dtype=np.int64),
            columns=tuple(self.numbers[i] for i in plain),
            words=tuple(by_column.values()),
            families=tuple((place[i], family) for i, family in families if i in place),
            burden=None if self.burden is None else place.get(first_family + len(self.families)),
        )

    def _word_index(self) -> list[tuple[int, str]]:
        return [(j, word) for j, c in enumerate(self.texts) for word in (*c.words, UNKNOWN)]

    @cached_property
    def spans(self) -> Float64[np.ndarray, "numbers 2"]:
        """Smallest and largest training value of each number; inf and -inf where none was known."""
        bounds = [c.span if c.span is not None else (np.inf, -np.inf) for c in self.numbers]
        return np.array(bounds, dtype=np.float64).reshape(len(bounds), 2)

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


def _unskewed(kind: str, v: Float64[np.ndarray, "*cells"]) -> Float64[np.ndarray, "*cells"]:
    if kind == LOG:
        return np.asarray(np.log1p(np.maximum(v, 0.0)))
    return np.asarray(np.sign(v) * np.log1p(np.abs(v)))


def _apply(column: NumberColumn, v: Float64[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    if column.transform == IDENTITY:
        return v
    if column.transform == QUANTILE:
        at, score = zip(*column.knots)
        return np.asarray(np.interp(v, at, score))
    return _unskewed(column.transform, v)


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
