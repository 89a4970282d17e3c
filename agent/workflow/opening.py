"""Open a bundle for review: the real student, grid and policies in one kit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from agent.calibration import calibrate
from agent.policies.plan_settings import KINDS
from agent.policies.planner import PlannedPolicy
from agent.policies.protocol import Policy
from agent.policies.registry import check_policy_name, make_policy
from agent.workflow.kit import BundleIdentity, ReviewKit, assemble, class_counts_of
from carbon.monitor import CarbonMonitor
from distill.bundle import EVIDENCE, TRAINING_IDS, hash_case_id
from distill.errors import BundleError
from distill.evidence import EvidenceTable
from distill.runtime import StudentRuntime
from envs.catalogue import ActionCatalogue
from envs.config import SessionConfig
from envs.gain import GainModel
from envs.observation import ObservationLayout
from envs.setup import build_setup

LIVE_WAIT_AUC = 2e-4
"""Net session AUC that waiting must add before a live case is put off."""


def open_kit(
    bundle: Path,
    *,
    monitor: CarbonMonitor,
    policy: str,
    seed: int = 0,
    config: SessionConfig | None = None,
    budget_g_co2e_per_day: float | None = None,
    precision: str | None = None,
    shadow: Sequence[str] = (),
) -> ReviewKit:
    """Open a bundle.

    Args:
        bundle: folder that ``greenboard train`` wrote.
        monitor: the grid and the meter.
        policy: name or folder of the policy that decides where a case names none.
        seed: of policies that draw.
        config: session settings.
        budget_g_co2e_per_day: see :func:`agent.workflow.kit.assemble`.
        precision: ``fp32`` or ``int8``; by default the student that the bundle's training chose.
        shadow: names or folders of policies that decide silently beside the acting one.

    Raises:
        BundleError: if the bundle is incomplete or altered, or has no student of that precision.
        PolicyError: if ``policy`` names nothing, or a silent policy cannot be made. A deciding one
            that is there but cannot be read is no error: the rule decides then, and each case
            says so.
    """
    student = StudentRuntime.open(bundle, precision=precision)
    evidence = EvidenceTable.load(student.bundle.file(EVIDENCE))
    if evidence.transfers != student.transfers or evidence.modalities != student.modalities:
        raise BundleError(
            f"{bundle}: the evidence table and the student speak of different modalities or "
            "transfers. Train it again with 'greenboard train'."
        )
    check_policy_name(policy, ActionCatalogue(evidence.transfers))
    negative, positive = student.classes
    trained = _training_ids(student)

    def make(name: str, layout: ObservationLayout, catalogue: ActionCatalogue) -> Policy:
        if name in KINDS:
            return live_planner(name, evidence, config)
        return make_policy(name, layout, catalogue, seed)

    return assemble(
        evidence,
        identity=BundleIdentity(
            cohort=student.cohort_name,
            synthetic=student.synthetic,
            version=student.bundle_version,
            negative=negative,
            positive=positive,
            precision=student.precision,
        ),
        student=student,
        monitor=monitor,
        make_policy=make,
        policy=policy,
        seen_in_training=lambda case_id: hash_case_id(case_id) in trained,
        config=config,
        budget_g_co2e_per_day=budget_g_co2e_per_day,
        shadow=shadow,
    )


def live_planner(
    name: str, evidence: EvidenceTable, config: SessionConfig | None = None
) -> PlannedPolicy:
    """A planner with its tables fitted to the bundle's own patients, at its default constants.

    The predicted gains of live cases are fitted to the same patients. A live case shares no
    slots, so none are priced and nobody is let pass. In replay an hour of waiting costs nothing;
    here somebody waits for the answer, so that a wait has to be worth :data:`LIVE_WAIT_AUC`.

    Raises:
        EnvsError: if the bundle has too few patients to fit anything.
    """
    config = config or SessionConfig()
    counts = class_counts_of(evidence, config)
    gain = GainModel.fit(evidence, np.arange(evidence.n_patients), *counts)
    # nobody is drawn: a small bundle may fill a smaller session than the gains speak of
    cases = min(config.n_cases, max(evidence.n_patients // 2, 2))
    setup = build_setup(
        evidence=evidence, rules="worklist", config=replace(config, n_cases=cases), period="all",
        gain_model=gain,
    )  # fmt: skip
    policy = calibrate(name, replace(setup, n_pos=counts[0], n_neg=counts[1]), ())
    wait = max(policy.settings.wait_gain, LIVE_WAIT_AUC)
    alone = {"slots_bind": False, "queues": False, "crowd": 0.0, "wait_gain": wait}
    return replace(policy, settings=policy.settings.model_copy(update=alone))


def _training_ids(student: StudentRuntime) -> frozenset[str]:
    data = student.bundle.json(TRAINING_IDS)
    ids = data.get("sha256") if isinstance(data, dict) else data
    if not isinstance(ids, list):
        raise BundleError(f"{TRAINING_IDS} of the bundle holds no list of sums. Train it again.")
    return frozenset(str(entry) for entry in ids)
