"""What a planner takes into account, and its few constants; stored in ``policy.json``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from envs.config import SessionConfig

PlannerKind = Literal["feedback", "dp", "mpc", "planner"]
KINDS: tuple[PlannerKind, ...] = ("feedback", "dp", "mpc", "planner")


class PlanSettings(BaseModel):
    """Settings of a planner.

    Attributes:
        waits: whether it looks for cleaner hours.
        queues: whether it leaves slots to cases that gain more.
        batches: whether it shares out the start of a run.
        any_hour: whether a case may wait until any hour before it is due; otherwise a deferred
            case comes up once more, after all others.
        slots_bind: whether transfers take slots.
        least_per_g: AUC per gCO2e that carbon costs at least (the environment's price).
        slots_per_hour: transfers or visits an hour.
        setup_factor: energy of starting a run, as a multiple of its energy per case.
        run_size: cases that a later run is reckoned to serve.
        arrival_share: part of the session in which cases arrive.
        follow_share: weight of what is expected to follow a transfer.
        min_gain: AUC that a transfer must gain beyond its costs.
        clean_share: work is reckoned to be done in this cleanest share of the hours forecast.
        spend: share of the budget left that prices give out; running dry costs more than a rest
            that is left over.
        slot_yield: share of the slots that will find a case waiting.
        slot_weight: the clearing price of a slot counts this much.
        wait_gain: AUC that a wait must bring at least.
        slot_loss: share of a slot's price that a wait forgoes.
        margin_h: hours before the deadline by which a wait ends.
        crowd: weight of cases still to arrive among the rivals.
        crowding: how much of the cleanest hours the rivals take.
        served_share: a case lets others pass if the better ones are more than this many times the
            slots until its deadline. The slot's price rations them already; a strict rule (1 or
            less) left slots unused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    waits: bool = False
    queues: bool = False
    batches: bool = False
    any_hour: bool = True
    slots_bind: bool = False
    least_per_g: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    slots_per_hour: float = Field(default=4.0, gt=0.0, allow_inf_nan=False)
    setup_factor: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    run_size: float = Field(default=4.0, ge=1.0, allow_inf_nan=False)
    arrival_share: float = Field(default=0.75, ge=0.0, le=1.0)
    follow_share: float = Field(default=1.0, ge=0.0, le=1.0)
    min_gain: float = Field(default=1e-4, ge=0.0, allow_inf_nan=False)
    clean_share: float = Field(default=1.0, gt=0.0, le=1.0)
    spend: float = Field(default=0.85, gt=0.0, allow_inf_nan=False)
    slot_yield: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    slot_weight: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    wait_gain: float = Field(default=1e-5, ge=0.0, allow_inf_nan=False)
    slot_loss: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    margin_h: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    crowd: float = Field(default=0.5, ge=0.0, allow_inf_nan=False)
    crowding: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    served_share: float = Field(default=2.0, ge=0.0, allow_inf_nan=False)


def settings_for(
    kind: PlannerKind, config: SessionConfig, rules: str = "worklist", *, g_per_auc: float | None
) -> PlanSettings:
    """Settings of a kind under the rules of a session, constants at their defaults.

    Args:
        kind: how much it takes into account.
        config: slots, set-up energy, arrivals.
        rules: ``oneshot``, ``sequential`` or ``worklist``.
        g_per_auc: the environment's price, gCO2e per unit of AUC; None where it charges none.
    """
    worklist, waits = rules == "worklist", kind in ("mpc", "planner") and rules != "oneshot"
    return PlanSettings(
        waits=waits,
        queues=kind == "planner" and worklist,
        batches=kind == "planner",
        any_hour=worklist,
        slots_bind=worklist,
        least_per_g=1.0 / g_per_auc if g_per_auc else 0.0,
        slots_per_hour=float(config.slots_per_hour),
        setup_factor=config.setup_factor,
        run_size=float(config.slots_per_hour),
        arrival_share=config.arrival_share,
        clean_share=0.4 if waits else 1.0,
    )
