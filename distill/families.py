"""Burdens of gene families: what single rare mutations cannot say.

A gene that one patient in fifty has mutated tells a model little; how many collagens, cadherins or
potassium channels are mutated tells it more, and a linear model most of all. Families are read off
the names: genes that share the first three or four letters of their symbol mostly share a root in
the HGNC's nomenclature (COL1A2, COL5A1: collagens), which needs no outside table and works for any
panel.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

ROOT = re.compile(r"[A-Z]+")
ROOT_LETTERS = (3, 4)
MIN_MEMBERS = 4
PREFIX = "family:"


@dataclass(frozen=True, kw_only=True)
class Family:
    """Columns of a 0/1 table that are counted together; mean and scale of log1p of the count."""

    name: str
    columns: tuple[int, ...]
    mean: float
    scale: float

    @property
    def feature(self) -> str:
        """The feature's name."""
        return PREFIX + self.name

    def scaled(self, numbers: Float64[np.ndarray, "rows numbers"]) -> Float64[np.ndarray, " rows"]:
        """How many members are 1, as a scaled log1p; missing cells count as 0."""
        return np.asarray((self._count(numbers) - self.mean) / self.scale)

    def _count(self, numbers: Float64[np.ndarray, "rows numbers"]) -> Float64[np.ndarray, " rows"]:
        return np.asarray(np.log1p(np.nansum(numbers[:, list(self.columns)], axis=1)))

    def fitted(self, numbers: Float64[np.ndarray, "rows numbers"]) -> Family:
        """The same family with mean and scale of these rows."""
        count = self._count(numbers)
        spread = float(count.std())
        return Family(
            name=self.name, columns=self.columns, mean=float(count.mean()),
            scale=spread if spread > 1e-9 else 1.0,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "columns": list(self.columns), "mean": self.mean,
                "scale": self.scale}  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Family:
        """Rebuild what :meth:`to_json` gave."""
        return cls(
            name=str(data["name"]), columns=tuple(int(i) for i in data["columns"]),
            mean=float(data["mean"]), scale=float(data["scale"]),
        )  # fmt: skip


def roots(symbol: str) -> tuple[str, ...]:
    """The roots that a gene symbol may share: its first three and four letters, if it has them."""
    found = ROOT.match(symbol)
    letters = found.group(0) if found else ""
    return tuple(dict.fromkeys(letters[:n] for n in ROOT_LETTERS if len(letters) >= n))


def families_of(
    names: Sequence[str], numbers: Float64[np.ndarray, "rows numbers"]
) -> tuple[Family, ...]:
    """Every root that at least four of the columns share, scaled on these rows.

    Of two roots with the same columns the shorter one is kept.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        for root in roots(name):
            members[root].append(i)
    out: dict[tuple[int, ...], Family] = {}
    for root in sorted(members, key=lambda r: (len(r), r)):
        columns = tuple(members[root])
        if len(columns) >= MIN_MEMBERS and columns not in out:
            bare = Family(name=root, columns=columns, mean=0.0, scale=1.0)
            out[columns] = bare.fitted(numbers)
    return tuple(sorted(out.values(), key=lambda f: f.name))
