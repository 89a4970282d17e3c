"""Prepared features of the cases under review, read back from the store after a restart."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from agent.workflow.errors import WorkflowError
from agent.workflow.protocols import Student
from api.store.cases import get_features
from api.store.database import Database
from distill.cohort import Cohort
from distill.temporal import TEMPORAL
from distill.transfers import BASE_MODALITY

KEEP = 512


class CaseInputs:
    """Gives the graph's nodes a case's prepared features by the case's id."""

    def __init__(self, student: Student, database: Database) -> None:
        """Remember nothing yet."""
        self._student = student
        self._database = database
        self._prepared: OrderedDict[tuple[str, frozenset[str]], Any] = OrderedDict()

    def add(self, case_id: str, features: Mapping[str, Any]) -> None:
        """Check and keep the features of a new case.

        Raises:
            FeatureError: if the bundle cannot take them.
        """
        self._keep(case_id, frozenset(), features)

    def _keep(self, case_id: str, without: frozenset[str], features: Mapping[str, Any]) -> None:
        kept = {name: None if name in without else row for name, row in features.items()}
        self._prepared[case_id, without] = self._student.prepare(kept)
        while len(self._prepared) > KEEP:
            self._prepared.popitem(last=False)

    def forget(self, case_id: str) -> None:
        """Drop what is in memory; the store keeps the case."""
        for key in [key for key in self._prepared if key[0] == case_id]:
            del self._prepared[key]

    async def prepared(self, case_id: str, without: frozenset[str] = frozenset()) -> Any:
        """The prepared features, ``without`` the modalities that somebody does not trust.

        Raises:
            WorkflowError: if there is no such case.
        """
        if (case_id, without) not in self._prepared:
            features = await self._database.read(lambda c: get_features(c, case_id))
            if features is None:
                raise WorkflowError("The case is not in the store any more; post it again.")
            self._keep(case_id, without, features)
        return self._prepared[case_id, without]


def times_of(student: Student) -> tuple[str, ...]:
    """Names of the times that the student takes with a case; none where it has no time gate."""
    return tuple(student.example().get(TEMPORAL) or ())


def cohort_features(
    cohort: Cohort, case_id: str, modalities: tuple[str, ...], times: tuple[str, ...] = ()
) -> dict[str, dict[str, Any] | None] | None:
    """Feature rows of a cohort's case, inference modalities only; None if there is no such case.

    The label, the hospital and the fold stay behind: they are in no table of features. The
    ``times`` come beside the modalities, under ``"temporal"``.
    """
    if case_id not in cohort.case_id:
        return None
    features: dict[str, dict[str, Any] | None] = {}
    for modality in modalities:
        table = cohort.tables.get(modality)
        if table is None or case_id not in table.index:
            features[modality] = None
            continue
        row = table.loc[case_id]
        features[modality] = {str(name): _plain(value) for name, value in row.items()}
    if times and cohort.temporal is not None:
        gaps = cohort.temporal.loc[case_id]
        features[TEMPORAL] = {name: _plain(gaps.get(name)) for name in times}
    return features


def known_clinical(features: Mapping[str, Mapping[str, Any] | None]) -> bool:
    """Whether one clinical value is known, without which no case can be reviewed."""
    return any(value is not None for value in (features.get(BASE_MODALITY) or {}).values())


def _plain(value: Any) -> Any:
    """A cell as JSON has it: a missing one is None."""
    if value is None or value != value:  # noqa: PLR0124  # NaN is what differs from itself
        return None
    return value.item() if hasattr(value, "item") else value
