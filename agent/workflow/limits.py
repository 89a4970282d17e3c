"""Soft and hard limits on what reviews emit in a session, a day or a month; what happens at each.

The policies' own budget (:mod:`agent.workflow.budget`) steers what they find worth its carbon.
These limits are the operator's: they hold whatever the policy wants. A transfer that would pass a
hard limit is refused, or the case waits for the next period; past a soft limit it is flagged. Each
time the reason goes into the case's steps and its explanation. Scoring a case is never refused: it
costs next to nothing, and a case must always reach its clinician.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import numpy as np
from jaxtyping import Bool

from agent.workflow.state import CarbonView, Option, Plan
from carbon.budget import Budget, BudgetStatus, SpendTally, strictest
from carbon.intensity.protocol import as_utc

HOUR = timedelta(hours=1)


class SpendLimits:
    """The operator's limits and what was spent against them, filled from the ledger.

    Args:
        budgets: at most one for each kind of period; none limits nothing.
        timezone: where days and months begin.

    Raises:
        BudgetError: if two budgets are for one kind of period.
    """

    def __init__(self, budgets: Iterable[Budget] = (), *, timezone: tzinfo = UTC) -> None:
        self._tally = SpendTally(budgets, timezone=timezone)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The limits."""
        return self._tally.budgets

    def charge(
        self, case: str, stage: str, at: datetime, g_co2e: float | None, *, session: str | None
    ) -> None:
        """Count one stage of one case; the same again changes nothing."""
        if self.budgets:
            self._tally.book(at, g_co2e, session=session, once=(case, stage))

    def status(
        self, at: datetime, *, session: str | None = None, cost_g_co2e: float = 0.0
    ) -> tuple[BudgetStatus, ...]:
        """Where each limit stands, and what work of this cost would meet."""
        return self._tally.status(at, session=session, cost_g_co2e=cost_g_co2e)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One case whose policy is to choose under the limits.

    Attributes:
        options: every action, the transfers first, with their cost.
        mask: open actions, one row.
        session: the case's session.
        slack_h: hours that the case may still wait; 0 if it was deferred before.
        carbon: the grid, now and ahead.
        at: the present.
        defer: index of the action that waits.
    """

    options: Sequence[Option]
    mask: Bool[np.ndarray, "1 actions"]
    session: str | None
    slack_h: float
    carbon: CarbonView
    at: datetime
    defer: int


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What the case does under the limits.

    Attributes:
        action: index of the action.
        options: every action; what a limit closed is no longer allowed.
        plan: when the case is looked at again, where a limit makes it wait; else None.
        notes: what limits did, in words; empty where they did nothing.
        statuses: every limit as it stood, plain.
    """

    action: int
    options: Sequence[Option]
    plan: Plan | None
    notes: list[str]
    statuses: list[dict[str, Any]]


def under_limits(
    limits: SpendLimits, asked: Asked, act: Callable[[Bool[np.ndarray, "1 actions"]], int]
) -> Ruling:
    """Let the policy choose, then hold its choice against the limits.

    Args:
        limits: the operator's.
        asked: the case.
        act: the policy's choice for a mask; asked again without the transfers that are refused.
    """
    action, options, notes = act(asked.mask), list(asked.options), []
    refused = {i: met for i, met in _met(limits, asked).items() if strictest(met) == "refuse"}
    if action in refused:
        notes.append(_refusal(refused[action], options[action]))
        mask = asked.mask.copy()
        mask[0, list(refused)] = False
        options = [
            option.model_copy(update={"allowed": option.allowed and i not in refused})
            for i, option in enumerate(options)
        ]
        action = act(mask)
    standing = [status.as_dict() for status in limits.status(asked.at, session=asked.session)]
    ruling = Ruling(action=action, options=options, plan=None, notes=notes, statuses=standing)
    cost = options[action].g_co2e
    if cost is None:
        return ruling
    return _soften(ruling, asked, limits.status(
        asked.at, session=asked.session, cost_g_co2e=cost
    ))  # fmt: skip


def standing_of(
    limits: SpendLimits, option: Option, *, at: datetime, session: str | None
) -> tuple[str, str]:
    """What the limits say to one transfer, and which of them say it, in words."""
    met = limits.status(at, session=session, cost_g_co2e=option.g_co2e or 0.0)
    verdict = strictest(met)
    if verdict == "proceed":
        return verdict, ""
    return verdict, _standing([status for status in met if status.action == verdict], option)


def _met(limits: SpendLimits, asked: Asked) -> dict[int, tuple[BudgetStatus, ...]]:
    """What each open transfer would meet."""
    if not limits.budgets:
        return {}
    return {
        i: limits.status(asked.at, session=asked.session, cost_g_co2e=option.g_co2e)
        for i, option in enumerate(asked.options)
        if option.g_co2e is not None and asked.mask[0, i]
    }


def _soften(ruling: Ruling, asked: Asked, met: tuple[BudgetStatus, ...]) -> Ruling:
    """Wait for the next period where a limit asks for it and the case can; else flag."""
    option, verdict = ruling.options[ruling.action], strictest(met)
    if verdict == "proceed":
        return ruling
    said = _standing([status for status in met if status.action == verdict], option)
    if verdict == "warn":
        return replace(ruling, notes=[*ruling.notes, f"{said}; it goes on, flagged."])
    ends = max(as_utc(s.ends) for s in met if s.action == "defer" and s.ends is not None)
    wait_h = (ends - as_utc(asked.at)) / HOUR
    if not 0 < wait_h <= asked.slack_h:
        note = f"{said}; the case cannot wait until {ends:%Y-%m-%d %H:%M} UTC and goes on, flagged."
        return replace(ruling, notes=[*ruling.notes, note])
    note = f"{said}; the case waits until {ends:%Y-%m-%d %H:%M} UTC."
    return replace(
        ruling,
        action=asked.defer,
        plan=_plan(asked, ends, wait_h, option, note),
        notes=[*ruling.notes, note],
    )


def _plan(asked: Asked, ends: datetime, wait_h: float, option: Option, why: str) -> Plan:
    carbon, now = asked.carbon, asked.carbon.now.g_per_kwh
    expected, how = now, " No forecast reaches that far: the present intensity stands for it."
    if carbon.forecast_from is not None:
        lead = int((ends - as_utc(carbon.forecast_from)) / HOUR)
        if 0 <= lead < len(carbon.forecast_g_per_kwh):
            expected, how = carbon.forecast_g_per_kwh[lead], ""
    return Plan(
        wake_at=ends,
        wait_h=wait_h,
        intensity_now_g_per_kwh=now,
        intensity_expected_g_per_kwh=expected,
        transfer=option.action,
        energy_kwh=option.energy_kwh,
        why=why + how,
        by_limit=True,
    )


def _refusal(met: tuple[BudgetStatus, ...], option: Option) -> str:
    return f"{_standing([s for s in met if s.action == 'refuse'], option)}; it is refused."


def _standing(statuses: Sequence[BudgetStatus], option: Option) -> str:
    """Which limit, how much of it is spent, and what the transfer would add."""
    return "; ".join(
        f"{_which(status, option)} limit of the {status.budget.period} {status.key}: "
        f"{status.spent_g_co2e:.4g} g CO2e spent, {_limit(status, option):g} allowed, and "
        f"{option.action} would add {option.g_co2e or 0.0:.4g}"
        for status in statuses
    )


def _hard(status: BudgetStatus, option: Option) -> bool:
    after = status.spent_g_co2e + (option.g_co2e or 0.0)
    return status.level == "hard" or after > status.budget.hard_g_co2e


def _which(status: BudgetStatus, option: Option) -> str:
    return "Hard" if _hard(status, option) else "Soft"


def _limit(status: BudgetStatus, option: Option) -> float:
    budget = status.budget
    return budget.hard_g_co2e if _hard(status, option) else budget.soft_g_co2e
