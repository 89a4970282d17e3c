"""Whom a policy serves, and whom less: gain and carbon by groups of patients.

A case's part in its session's AUC gain is its midpoint attribution (``envs.reward``): the parts of
a session sum to the gain. Averaged over a patient's appearances and over a group's patients, times
the cases of a session, that is what a session would gain if all its cases were like the group's.
Two gaps are tested, each group against all other patients: the gain itself, and the gain forgone,
that is what full evidence would have given these patients minus what the policy gave them. The
first also holds what is in the patients; the second is the policy's own doing. Patients are
redrawn; Holm's correction is over all groups and both gaps of a policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from agent.report.findings import Difference, EquityGroup, EquityReport, GroupService
from agent.results import FoldResult, policy_names_of
from agent.rollout import SessionRecords
from agent.statistics import Estimate, holm, two_sided_p
from distill.evidence import EvidenceTable
from envs.reward import midpoint_credit

SMALLEST = 20
REPLICATES = 4000
NOT_RECORDED = "not recorded"
AGE_EDGES = (60.0, 70.0)
AGE_BANDS = ("under 60", "60 to 69", "70 and over")
STAGES = {"iv": "IV", "iii": "III", "ii": "II", "i": "I"}


def _text(value: object) -> str:
    known = isinstance(value, str) and value.strip()
    return value.strip().lower() if known and isinstance(value, str) else NOT_RECORDED


def _age_band(value: object) -> str:
    age = float(value) if isinstance(value, (int, float)) else float("nan")
    if not np.isfinite(age):
        return NOT_RECORDED
    return AGE_BANDS[int(np.digitize(age, AGE_EDGES))]


def _stage(value: object) -> str:
    """Stages I to IV, substages together; ``stage iiia`` and ``IIIA`` are III."""
    words = _text(value).removeprefix("stage").strip()
    for prefix, stage in STAGES.items():
        if words.startswith(prefix):
            return stage
    return NOT_RECORDED


READERS = {"sex": _text, "age": _age_band, "race": _text, "stage": _stage}


def attributes_of(clinical: pd.DataFrame, case_id: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Groups of each case, by attribute, from a clinical table indexed by case id.

    Args:
        clinical: columns ``sex``, ``age``, ``race``, ``stage``; those that are not there are left
            out.
        case_id: the cases, in the order wanted; a case without a row counts as not recorded.
    """
    table = clinical.reindex(list(case_id))
    return {
        name: tuple(read(value) for value in table[name])
        for name, read in READERS.items()
        if name in table
    }


@dataclass(frozen=True, kw_only=True)
class _PatientTotals:
    """Sums over all appearances of each patient (rows of the evidence table).

    Attributes:
        appearances: how often each was drawn.
        gain: by policy, midpoint attribution times cases a session.
        g_co2e: by policy, emissions, g.
        reference: as ``gain``, for everything without a budget.
    """

    appearances: Float64[np.ndarray, " patients"]
    gain: Mapping[str, Float64[np.ndarray, " patients"]]
    g_co2e: Mapping[str, Float64[np.ndarray, " patients"]]
    reference: Float64[np.ndarray, " patients"]


def _case_gain(run: SessionRecords) -> Float64[np.ndarray, "sessions cases"]:
    credit = midpoint_credit(run.first_score, run.final_score, run.label[0] > 0)
    return np.asarray(credit * credit.shape[1])


def _by_patient(
    values: Float64[np.ndarray, "sessions cases"], rows: Int64[np.ndarray, "sessions cases"], n: int
) -> Float64[np.ndarray, " patients"]:
    return np.asarray(np.bincount(rows.ravel(), weights=values.ravel(), minlength=n))


def _totals(results: Sequence[FoldResult], n: int) -> _PatientTotals:
    names = policy_names_of(results)
    appearances, reference = np.zeros(n), np.zeros(n)
    gain = {name: np.zeros(n) for name in names}
    grams = {name: np.zeros(n) for name in names}
    for result in results:
        rows = result.rows[result.reference.patient]
        appearances += _by_patient(np.ones(rows.shape), rows, n)
        reference += _by_patient(_case_gain(result.reference), rows, n)
        for name in names:
            runs = result.records[name]
            mean_gain = np.mean([_case_gain(run) for run in runs], axis=0)
            gain[name] += _by_patient(mean_gain, rows, n)
            grams[name] += _by_patient(np.mean([r.case_g_co2e for r in runs], axis=0), rows, n)
    return _PatientTotals(appearances=appearances, gain=gain, g_co2e=grams, reference=reference)


@dataclass(frozen=True, kw_only=True)
class _Means:
    """A mean over a group's appearances: as it is, and redrawn."""

    value: float
    redrawn: Float64[np.ndarray, " replicates"]


def _mean(
    total: Float64[np.ndarray, " patients"],
    appearances: Float64[np.ndarray, " patients"],
    member: Bool[np.ndarray, " patients"],
    weight: Float64[np.ndarray, "replicates patients"],
) -> _Means:
    drawn = weight[:, member] @ appearances[member]
    summed = weight[:, member] @ total[member]
    redrawn = np.full(len(weight), np.nan)
    np.divide(summed, drawn, out=redrawn, where=drawn > 0)
    return _Means(value=float(total[member].sum() / appearances[member].sum()), redrawn=redrawn)


def _gap(
    total: Float64[np.ndarray, " patients"],
    appearances: Float64[np.ndarray, " patients"],
    member: Bool[np.ndarray, " patients"],
    weight: Float64[np.ndarray, "replicates patients"],
) -> _Means:
    seen = appearances > 0
    inside = _mean(total, appearances, member, weight)
    outside = _mean(total, appearances, seen & ~member, weight)
    return _Means(value=inside.value - outside.value, redrawn=inside.redrawn - outside.redrawn)


@dataclass(frozen=True, kw_only=True)
class _Group:
    attribute: str
    group: str
    member: Bool[np.ndarray, " patients"]

    @property
    def n(self) -> int:
        return int(self.member.sum())


def _place(group: str) -> tuple[bool, int, str]:
    """Age bands by age, other groups by name, those not recorded last."""
    band = AGE_BANDS.index(group) if group in AGE_BANDS else 0
    return group == NOT_RECORDED, band, group


def _groups(
    attributes: Mapping[str, Sequence[str]], seen: Bool[np.ndarray, " patients"]
) -> list[_Group]:
    found = []
    for attribute, values in attributes.items():
        column = np.array(values)
        for group in sorted(set(column[seen].tolist()), key=_place):
            member = seen & (column == group)
            found.append(_Group(attribute=attribute, group=group, member=member))
    return found


def _services(
    groups: Sequence[_Group],
    totals: _PatientTotals,
    name: str,
    weight: Float64[np.ndarray, "replicates patients"],
) -> list[GroupService]:
    """How one policy serves each group."""
    seen = totals.appearances
    forgone = totals.reference - totals.gain[name]
    gaps = [_gap(totals.gain[name], seen, g.member, weight) for g in groups]
    gaps += [_gap(forgone, seen, g.member, weight) for g in groups]
    raw = np.array([two_sided_p(gap.redrawn) for gap in gaps])
    corrected = holm(raw)
    differences = [
        Difference(
            estimate=Estimate.of(gap.value, gap.redrawn, groups[i % len(groups)].n),
            p_value=float(raw[i]),
            p_holm=float(corrected[i]),
        )
        for i, gap in enumerate(gaps)
    ]
    services = []
    for i, group in enumerate(groups):
        gain = _mean(totals.gain[name], seen, group.member, weight)
        grams = _mean(totals.g_co2e[name], seen, group.member, weight)
        gained, left = differences[i], differences[len(groups) + i]
        worse = (gained.significant and gained.estimate.value < 0) or (
            left.significant and left.estimate.value > 0
        )
        services.append(
            GroupService(
                gain=Estimate.of(gain.value, gain.redrawn, group.n),
                g_co2e=Estimate.of(grams.value, grams.redrawn, group.n),
                gain_gap=gained,
                forgone_gap=left,
                worse=worse,
            )
        )
    return services


def _sentence(name: str, group: EquityGroup, service: GroupService) -> str:
    gap, left = service.gain_gap.estimate, service.forgone_gap.estimate
    own = service.forgone_gap.significant and left.value > 0
    reason = (
        f"it forgoes {left.value:+.3f} [{left.low:+.3f}, {left.high:+.3f}] more of what full "
        "evidence would give them"
        if own
        else "what full evidence would give them differs as well, so the policy alone need not be "
        f"the cause (forgone: {left.value:+.3f} [{left.low:+.3f}, {left.high:+.3f}])"
    )
    return (
        f"{name} serves {group.attribute} '{group.group}' ({group.n_patients} patients) worse than "
        f"the others: AUC gain {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]; {reason}."
    )


def equity(
    results: Sequence[FoldResult],
    evidence: EvidenceTable,
    attributes: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
    *,
    smallest: int = SMALLEST,
    replicates: int = REPLICATES,
) -> EquityReport:
    """Gain and carbon of every policy by group, with who is served worse in words.

    Args:
        results: one entry a held-out fold.
        evidence: whose rows the records refer to.
        attributes: by attribute, the group of each row of the evidence table.
        rng: source of the redraws.
        smallest: groups with fewer patients are not shown.
        replicates: number of redraws of patients.
    """
    totals = _totals(results, evidence.n_patients)
    seen = totals.appearances > 0
    found = _groups(attributes, seen)
    shown = [group for group in found if group.n >= smallest and (seen & ~group.member).any()]
    weight = np.zeros((replicates, evidence.n_patients))
    weight[:, seen] = rng.multinomial(
        int(seen.sum()), np.full(int(seen.sum()), 1.0 / seen.sum()), size=replicates
    )
    services = {name: _services(shown, totals, name, weight) for name in totals.gain if shown}
    groups = tuple(
        EquityGroup(
            attribute=group.attribute,
            group=group.group,
            n_patients=group.n,
            policies={name: by_group[i] for name, by_group in services.items()},
        )
        for i, group in enumerate(shown)
    )
    return EquityReport(
        groups=groups,
        not_shown=tuple(f"{g.attribute}: {g.group} ({g.n})" for g in found if g.n < smallest),
        smallest=smallest,
        sentences=tuple(
            _sentence(name, group, service)
            for group in groups
            for name, service in group.policies.items()
            if service.worse
        ),
    )
