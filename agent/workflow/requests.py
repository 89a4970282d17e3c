"""Whether a transfer that a clinician asked for may run: it has to be possible and paid for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent.workflow.context import ReviewServices, transfer_energy_kwh
from agent.workflow.limits import standing_of
from agent.workflow.state import CarbonView, CaseState, Option


@dataclass(frozen=True, kw_only=True)
class Requested:
    """The answer to a request.

    Attributes:
        refused: why it may not run; None if it may.
        note: what a limit says to it all the same; None if nothing.
        energy_kwh: what it takes, with its source's pipeline where that has not run.
        g_co2e: the carbon that this stands for now.
        pipeline_g_co2e: of that, what will be charged.
    """

    refused: str | None
    note: str | None = None
    energy_kwh: float | None = None
    g_co2e: float | None = None
    pipeline_g_co2e: float | None = None


def requested(services: ReviewServices, state: CaseState, name: str, at: datetime) -> Requested:
    """Judge a request: the clinician overrules the policy and its budget, not the hard limits."""
    impossible = _impossible(services, state, name)
    if impossible is not None:
        return Requested(refused=impossible)
    g_per_kwh = CarbonView.model_validate(state["carbon"]).now.g_per_kwh
    pipeline, bridge = transfer_energy_kwh(services, name, state["assessment"]["processed"])
    energy = pipeline + bridge
    option = Option(action=name, allowed=True, energy_kwh=energy, g_co2e=energy * g_per_kwh)
    verdict, said = standing_of(services.limits, option, at=at, session=state.get("session"))
    refused = f"{said}; it is refused." if verdict == "refuse" else None
    note = f"{said}; a clinician asked for it and it goes on, flagged."
    return Requested(
        refused=refused,
        note=note if verdict in ("warn", "defer") else None,
        energy_kwh=energy,
        g_co2e=option.g_co2e,
        pipeline_g_co2e=pipeline * g_per_kwh,
    )


def _impossible(services: ReviewServices, state: CaseState, name: str) -> str | None:
    run = state["transfers_run"]
    if name not in services.source_of:
        return f"This bundle has no transfer {name!r}; it has {', '.join(services.source_of)}."
    if name in run:
        return f"{name} has been run for this case."
    source = services.source_of[name]
    if source in state.get("unreliable", ()):
        return f"{source}, which {name} starts from, was marked as unreliable."
    if source not in state["present"]:
        return f"The case lacks {source}, which {name} starts from."
    if len(run) >= services.catalogue.depth:
        return f"One case may get {services.catalogue.depth} transfers, and has had them."
    return None
