"""The bundles that a server reviews with: one is active, older ones see their cases to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.workflow.errors import WorkflowError
from agent.workflow.graph import CaseGraph
from agent.workflow.kit import ReviewKit
from api.inputs import CaseInputs
from distill.bundle import Bundle
from distill.errors import DistillError


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A bundle at work.

    Attributes:
        kit: its student, policies and tables.
        graph: the review graph over them.
        inputs: features of its cases, prepared for its student.
        folder: where it lies.
    """

    kit: ReviewKit
    graph: CaseGraph
    inputs: CaseInputs
    folder: Path

    @property
    def version(self) -> str:
        """The bundle's version, which cases are pinned to."""
        return self.kit.identity.version


class Kits:
    """Finds the bundle of a case; new cases get the active one."""

    def __init__(
        self,
        active: Loaded,
        *,
        build: Callable[[Path], Loaded],
        candidates: Callable[[], Iterable[Path]],
    ) -> None:
        """Begin with one bundle.

        Args:
            active: what new cases get.
            build: opens a bundle's folder; slow, so it is called in a thread.
            candidates: folders that may hold bundles.
        """
        self._active = active
        self._build = build
        self._candidates = candidates
        self._loaded = {active.version: active}
        self._loading = asyncio.Lock()

    @property
    def active(self) -> Loaded:
        """What new cases get."""
        return self._active

    def at_hand(self, version: str | None) -> Loaded | None:
        """The bundle of this version if it is open; None otherwise."""
        return self._active if version is None else self._loaded.get(version)

    async def of(self, version: str | None) -> Loaded:
        """The bundle of this version; the active one for None (cases of earlier servers).

        Raises:
            WorkflowError: if no folder holds it any more.
        """
        if version is None or version == self._active.version:
            return self._active
        async with self._loading:
            if version not in self._loaded:
                folder = await asyncio.to_thread(self._find, version)
                self._loaded[version] = await asyncio.to_thread(self._build, folder)
            return self._loaded[version]

    def candidates(self) -> list[Path]:
        """Folders that may hold bundles."""
        return list(self._candidates())

    async def load(self, folder: Path) -> Loaded:
        """Open a bundle beside the active one.

        Raises:
            BundleError: if it is incomplete or altered.
        """
        async with self._loading:
            loaded = await asyncio.to_thread(self._build, folder)
            # A version that is loaded keeps its prepared cases.
            return self._loaded.setdefault(loaded.version, loaded)

    def switch(self, loaded: Loaded) -> None:
        """Give a bundle that is open to new cases from now on."""
        self._active = loaded

    def forget(self, case_id: str) -> None:
        """Drop what memory holds of a case that is over."""
        for loaded in self._loaded.values():
            loaded.inputs.forget(case_id)

    def _find(self, version: str) -> Path:
        for folder in self._candidates():
            try:
                if str(Bundle.open(folder).manifest["version"]) == version:
                    return folder
            except (DistillError, OSError, KeyError):
                continue
        raise WorkflowError(
            f"The case was begun with bundle {version}, which this server does not find. Put its "
            "folder back among the bundles and retry, or send the case back."
        )
