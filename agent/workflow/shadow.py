"""Policies that decide silently beside the acting one, and what setting them side by side says.

A silent policy sees the acting one's observation and what was open to it. Its action goes into
the log and nowhere else. It never met what its own earlier actions would have led to: after the
first difference it is asked about a case that it would have left in another state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from agent.policies.protocol import Policy
from agent.statistics import Estimate
from agent.workflow.errors import WorkflowError
from agent.workflow.peers import Z95
from agent.workflow.state import Option
from agent.workflow.told import ShadowData, ShadowEntry
from envs.catalogue import ActionCatalogue

REPLICATES = 1000
FEW_CASES = 20
LIMITS: tuple[str, ...] = (
    "A silent policy never met the consequences of its own choices: each of its actions answers "
    "the case as the acting policy had left it. The differences are of single steps and do not "
    "add up to what it would have gained or emitted alone.",
    "Gains and emissions are predictions made at the moment of the choice, not outcomes.",
    "Finalising and waiting count as no gain and no emission of that step; what a wait saves later "
    "is not seen.",
    "Steps at which a carbon limit made the case wait are left out: no policy chose them.",
    "Research use only.",
)


def shadow_entries(
    policies: Sequence[Policy],
    catalogue: ActionCatalogue,
    observation: Float32[np.ndarray, "1 fields"],
    *,
    seq: int,
    acting: str,
    action: int,
    options: Sequence[Option],
    by_limit: bool = False,
) -> list[ShadowEntry]:
    """What each silent policy would do where the acting one has just decided.

    Args:
        policies: the silent ones.
        catalogue: names of the actions.
        observation: what the acting policy saw.
        seq: of the choice's event.
        acting: name of the acting policy.
        action: what was done.
        options: every action with what was predicted of it, and whether it was open in the end.
        by_limit: a carbon limit, not the policy, made the case wait.
    """
    if not policies:
        return []
    mask = np.array([[option.allowed for option in options]])
    entries = []
    for policy in policies:
        own = int(np.asarray(policy.act(observation, mask))[0])
        data = _beside(options[own], options[action], by_limit=by_limit)
        name = catalogue.names[own]
        entries.append(
            ShadowEntry(seq=seq, policy=policy.name, acting=acting, action=name, data=data)
        )
    return entries


def _beside(own: Option, acting: Option, *, by_limit: bool) -> ShadowData:
    return ShadowData(
        acting_action=acting.action,
        predicted_auc_gain=own.predicted_auc_gain or 0.0,
        g_co2e=own.g_co2e or 0.0,
        acting_predicted_auc_gain=acting.predicted_auc_gain or 0.0,
        acting_g_co2e=acting.g_co2e or 0.0,
        by_limit=by_limit,
    )


@dataclass(frozen=True, kw_only=True)
class ShadowPair:
    """One silent policy beside one acting policy.

    Intervals redraw cases, since the steps of one case go together; they are None for one case.

    Attributes:
        policy: the silent one.
        acting: the one that decided.
        cases: how many cases.
        steps: how many decisions, of ``steps`` in :class:`ShadowReport`.
        agreement: share of decisions with the same action (Wilson's interval at the number of
            independent decisions that the redrawn cases are worth).
        first_agreement: the same for each case's first decision, which both met alike.
        actions: how often the acting policy did the first while the silent one would have done
            the second.
        gain: predicted session-AUC gain of a step, silent less acting.
        g_co2e: gCO2e of a step, silent less acting.
    """

    policy: str
    acting: str
    cases: int
    steps: int
    agreement: Estimate
    first_agreement: Estimate
    actions: Mapping[tuple[str, str], int]
    gain: Estimate
    g_co2e: Estimate

    def to_json(self) -> dict[str, Any]:
        """Figures as ``{"value", "ci95", "n"}``."""
        return {
            "policy": self.policy,
            "acting": self.acting,
            "cases": self.cases,
            "steps": self.steps,
            "agreement": self.agreement.to_json(),
            "first_agreement": self.first_agreement.to_json(),
            "actions": [
                {"acting": acting, "shadow": own, "n": n}
                for (acting, own), n in self.actions.items()
            ],
            "step_auc_gain_difference": self.gain.to_json(),
            "step_g_co2e_difference": self.g_co2e.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class ShadowReport:
    """Every pair of acting and silent policies in the log, and what the log cannot say.

    Attributes:
        pairs: by acting policy, then by silent policy.
        steps: rows of the log.
        left_out: rows at which a carbon limit decided.
        remarks: what a reader has to know of these figures.
    """

    pairs: tuple[ShadowPair, ...]
    steps: int
    left_out: int
    remarks: tuple[str, ...] = LIMITS

    def to_json(self) -> dict[str, Any]:
        """The whole report as plain data."""
        return {
            "steps": self.steps,
            "left_out_by_limit": self.left_out,
            "pairs": [pair.to_json() for pair in self.pairs],
            "remarks": list(self.remarks),
            "research_use_only": True,
        }


@dataclass(frozen=True, kw_only=True)
class _Row:
    case: str
    entry: ShadowEntry


def compare_shadow(rows: Iterable[Mapping[str, Any]], *, seed: int = 0) -> ShadowReport:
    """Set silent policies beside the acting ones.

    Args:
        rows: the log: ``case_id``, ``seq``, ``policy``, ``acting``, ``action``, ``data``; what
            else a row holds is not read.
        seed: of the redraws of cases.

    Raises:
        WorkflowError: if a row is not of that form.
    """
    read = [_read(i, row) for i, row in enumerate(rows)]
    kept = [row for row in read if not row.entry.data.by_limit]
    groups: dict[tuple[str, str], list[_Row]] = {}
    for row in kept:
        groups.setdefault((row.entry.acting, row.entry.policy), []).append(row)
    rng = np.random.default_rng(seed)
    pairs = tuple(_pair(key, groups[key], rng) for key in sorted(groups))
    few = [p for p in pairs if p.cases < FEW_CASES]
    remarks = LIMITS
    if few:
        named = ", ".join(f"{p.policy} beside {p.acting} ({p.cases})" for p in few)
        remarks = (f"Too few cases for firm words: {named}.", *LIMITS)
    return ShadowReport(
        pairs=pairs, steps=len(read), left_out=len(read) - len(kept), remarks=remarks
    )


def _read(index: int, row: Mapping[str, Any]) -> _Row:
    try:
        entry = ShadowEntry.model_validate(
            {name: row[name] for name in ("seq", "policy", "acting", "action", "data")}
        )
        return _Row(case=str(row["case_id"]), entry=entry)
    except (KeyError, ValueError) as error:
        # The row itself is not repeated: it is a record of a case.
        raise WorkflowError(
            f"Row {index + 1} of the shadow log is not one: it takes case_id, seq, policy, acting, "
            f"action and data as greenboard wrote them ({type(error).__name__})."
        ) from None


def _pair(key: tuple[str, str], rows: Sequence[_Row], rng: np.random.Generator) -> ShadowPair:
    names, case = np.unique([row.case for row in rows], return_inverse=True)
    entries = [row.entry for row in rows]
    same = np.array([e.action == e.data.acting_action for e in entries], dtype=np.float64)
    gain = np.array([e.data.predicted_auc_gain - e.data.acting_predicted_auc_gain for e in entries])
    g_co2e = np.array([e.data.g_co2e - e.data.acting_g_co2e for e in entries])
    order = np.lexsort((np.array([e.seq for e in entries]), case))
    first = order[np.r_[True, np.diff(case[order]) != 0]]
    weights = _redrawn(len(names), rng)
    actions: dict[tuple[str, str], int] = {}
    for entry in entries:
        done = (entry.data.acting_action, entry.action)
        actions[done] = actions.get(done, 0) + 1
    return ShadowPair(
        acting=key[0],
        policy=key[1],
        cases=len(names),
        steps=len(rows),
        agreement=_share(same, case, weights),
        first_agreement=_share(same[first], case[first], weights),
        actions=dict(sorted(actions.items(), key=lambda item: (-item[1], item[0]))),
        gain=_mean(gain, case, weights),
        g_co2e=_mean(g_co2e, case, weights),
    )


def _redrawn(n: int, rng: np.random.Generator) -> Float64[np.ndarray, "replicates cases"]:
    """How often each case occurs in each redraw of as many cases."""
    return rng.multinomial(n, np.full(n, 1.0 / n), size=REPLICATES).astype(np.float64)


def _draws(
    values: Float64[np.ndarray, " steps"],
    case: Int64[np.ndarray, " steps"],
    weights: Float64[np.ndarray, "replicates cases"],
) -> Float64[np.ndarray, " replicates"]:
    """Means over the steps of redrawn cases."""
    size = weights.shape[1]
    total = np.bincount(case, weights=values, minlength=size)
    count = np.bincount(case, minlength=size)
    return np.asarray((weights @ total) / (weights @ count))


def _mean(
    values: Float64[np.ndarray, " steps"],
    case: Int64[np.ndarray, " steps"],
    weights: Float64[np.ndarray, "replicates cases"],
) -> Estimate:
    return Estimate.of(float(values.mean()), _draws(values, case, weights), len(values))


def _share(
    same: Float64[np.ndarray, " steps"],
    case: Int64[np.ndarray, " steps"],
    weights: Float64[np.ndarray, "replicates cases"],
) -> Estimate:
    """A share with Wilson's interval at the effective number of steps (Kish's design effect).

    Where all agree or none does, redrawing says nothing, and each case counts once.
    """
    p, n = float(same.mean()), len(same)
    cases = len(np.unique(case))
    spread = float(_draws(same, case, weights).var())
    effective = min(p * (1.0 - p) / spread, float(n)) if spread > 0 else float(cases)
    z2 = Z95 * Z95
    centre = (p + z2 / (2 * effective)) / (1 + z2 / effective)
    root = np.sqrt(p * (1 - p) / effective + z2 / (4 * effective * effective))
    half = float(Z95 / (1 + z2 / effective) * root)
    low, high = min(max(centre - half, 0.0), p), max(min(centre + half, 1.0), p)
    return Estimate(value=p, low=low, high=high, n=n)
