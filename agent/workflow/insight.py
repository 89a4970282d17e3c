"""All that looks at a review without deciding it: what-if, peers, drift, silent policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.policies.protocol import Policy
from agent.workflow.changes import WhatIf
from agent.workflow.drift import DriftReference, drift_row
from agent.workflow.errors import WorkflowError
from agent.workflow.peers import PeerBook
from agent.workflow.told import RESULTS, DriftRow
from distill.evidence import EvidenceTable
from envs.catalogue import ActionCatalogue
from envs.gain import GainModel
from envs.observation import ObservationLayout


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A case against the training patients: flags in words, and the row that the watch keeps."""

    flags: list[str]
    row: DriftRow


@dataclass(frozen=True, kw_only=True)
class Insight:
    """What the nodes ask to explain a case; nothing here has an effect on it.

    Attributes:
        what_if: asks the policy about cases that differ in one thing.
        peers: patients like a case, in validation.
        drift: what the training patients were like.
        shadows: policies that decide silently beside the acting one.
        classes: names of the negative and the positive class.
    """

    what_if: WhatIf
    peers: PeerBook
    drift: DriftReference
    shadows: tuple[Policy, ...] = ()
    classes: tuple[str, str] = RESULTS

    @classmethod
    def of(
        cls,
        evidence: EvidenceTable,
        *,
        gain: GainModel,
        masks_unaffordable: bool,
        make_policy: Callable[[str, ObservationLayout, ActionCatalogue], Policy],
        shadow: Sequence[str] = (),
        classes: tuple[str, str] = RESULTS,
    ) -> Insight:
        """Build it around a bundle's evidence table.

        Args:
            evidence: the table.
            gain: predicted gains.
            masks_unaffordable: whether what the budget cannot pay is closed.
            make_policy: policy by name or directory.
            shadow: names or directories of the policies that decide silently.
            classes: names of the negative and the positive class.

        Raises:
            WorkflowError: if two silent policies have the same name.
            PolicyError: if one cannot be made.
        """
        names = tuple(t.name for t in evidence.transfers)
        layout, catalogue = ObservationLayout(evidence.modalities, names), ActionCatalogue(names)
        shadows = [make_policy(name, layout, catalogue) for name in dict.fromkeys(shadow)]
        return cls(
            what_if=WhatIf(
                layout=layout,
                catalogue=catalogue,
                gain=gain,
                masks_unaffordable=masks_unaffordable,
            ),
            peers=PeerBook(evidence=evidence),
            drift=DriftReference(evidence=evidence),
            shadows=_ready(shadows),
            classes=classes,
        )

    def watched(
        self,
        *,
        present: Sequence[str],
        quality: Mapping[str, float],
        outside: Mapping[str, tuple[int, int] | None],
        transfers_run: Sequence[str],
        logit: float,
        probability_clinical_only: float,
    ) -> Watched:
        """In what a case is unlike the training patients; see :meth:`DriftReference.flags`."""
        flags = self.drift.flags(
            present=present,
            quality=quality,
            outside=outside,
            transfers_run=transfers_run,
            logit=logit,
        )
        row = drift_row(
            present=present,
            outside=outside,
            probability_clinical_only=probability_clinical_only,
            flags=flags,
        )
        return Watched(flags=flags, row=row)


def _ready(policies: Sequence[Policy]) -> tuple[Policy, ...]:
    """Silent policies, started; each row of their log is known by its policy's name."""
    taken = [policy.name for policy in policies]
    if len(set(taken)) != len(taken):
        raise WorkflowError(
            f"Two of the shadow policies are called alike ({', '.join(taken)}); name one of each."
        )
    for policy in policies:
        policy.reset(1, 0)
    return tuple(policies)
