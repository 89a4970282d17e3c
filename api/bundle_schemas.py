"""Bundles as they are listed, and the course of their activations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from api.account_schemas import FigureView
from api.schemas import Body, Out

Version = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Kind = Literal["start", "activate", "rollback"]


class BundleView(Out):
    """One bundle."""

    version: str | None = Field(description="Names exactly these weights and settings.")
    name: str = Field(description="Last name of its folder.")
    active: bool = Field(description="New cases get it.")
    cohort: str | None
    synthetic: bool | None = Field(
        description="Trained on a synthetic cohort: for trying out only."
    )
    created: datetime | None
    modalities: list[str]
    metrics: dict[str, FigureView] = Field(
        description="auc, brier, ece with everything processed, on patients held out of training."
    )
    problem: str | None = Field(description="Why it cannot be read.")


class BundlesView(Out):
    """Which bundles there are."""

    active: str = Field(description="Version that new cases get.")
    rolls_back_to: str | None = Field(description="Version that a rollback would return to.")
    bundles: list[BundleView]


class ActivationRequest(Body):
    """Which bundle new cases are to get."""

    version: Version = Field(description="From GET /v1/bundles.")


class ActivationView(Out):
    """One bundle that became the one for new cases."""

    seq: int
    time: datetime
    actor: str
    kind: Kind = Field(description="start: the operator's configuration.")
    bundle: str
    name: str = Field(description="Last name of its folder.")


class ActivationsView(Out):
    """The course of activations, newest first; nothing in it is ever changed."""

    activations: list[ActivationView]
