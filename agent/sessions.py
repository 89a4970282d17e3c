"""From a bundle to review sessions: who is trained on, who is held out, over which hours."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from agent.errors import ComparisonError
from carbon.intensity.recorded import load_trace
from carbon.intensity.synthetic import synthetic_trace
from carbon.intensity.trace import Trace
from distill.bundle import EVIDENCE, MANIFEST, Bundle, hash_case_id, sha256_of
from distill.evidence import EvidenceTable
from envs.config import Rules, SessionConfig, preset
from envs.session import SYNTHETIC_HOURS, SYNTHETIC_SEED
from envs.setup import ReviewSetup, build_setup

if TYPE_CHECKING:
    from envs.sb3 import Sb3VecEnv

ONESHOT = "greenboard/CaseReviewOneShot-v1"
SEQUENTIAL = "greenboard/CaseReviewSequential-v1"
WORKLIST = "greenboard/CaseReview-v1"
RULES_OF: dict[str, Rules] = {
    ONESHOT: "oneshot", SEQUENTIAL: "sequential", WORKLIST: "worklist",
}  # fmt: skip
ENV_IDS = tuple(RULES_OF)

TraceLike = Trace | Path | str


def check_env_id(env_id: str) -> str:
    """The id, if policies can be trained and compared on it.

    Raises:
        ComparisonError: if not; the message suggests the nearest.
    """
    if env_id in RULES_OF:
        return env_id
    close = difflib.get_close_matches(env_id, ENV_IDS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ComparisonError(f"Unknown environment {env_id!r}.{hint} Choose {', '.join(ENV_IDS)}.")


def _traces(trace: TraceLike | Sequence[TraceLike] | None) -> tuple[Trace, ...]:
    """One trace or several, read where they are files; the synthetic grid for None."""
    if trace is None:
        return (synthetic_trace(SYNTHETIC_HOURS, SYNTHETIC_SEED),)
    several = [trace] if isinstance(trace, (Trace, Path, str)) else list(trace)
    if not several:
        raise ComparisonError("No trace was given; leave it out for the synthetic grid.")
    read = tuple(one if isinstance(one, Trace) else load_trace(Path(one)) for one in several)
    names = [one.name for one in read]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ComparisonError(f"Trace {twice[0]!r} was given twice; give each once.")
    return read


def _config(config: SessionConfig | None, preset_name: str | None) -> SessionConfig:
    if preset_name is None:
        return config or SessionConfig()
    if config is not None:
        raise ComparisonError("Give a preset or a configuration, not both.")
    return preset(preset_name)


@dataclass(frozen=True, kw_only=True)
class SessionSource:
    """A bundle's patients and a trace's hours, from which sessions are drawn.

    Attributes:
        evidence: the bundle's evidence table.
        traces: the grids; each session draws one of them.
        config: settings of every session.
        bundle_facts: what names the bundle for good: cohort, hashes.
        env_id: the environment.
        preset: name of the settings, where they have one.
    """

    evidence: EvidenceTable
    traces: tuple[Trace, ...]
    config: SessionConfig
    bundle_facts: dict[str, Any]
    env_id: str = SEQUENTIAL
    preset: str | None = None

    @classmethod
    def open(
        cls,
        bundle: Path,
        *,
        trace: TraceLike | Sequence[TraceLike] | None = None,
        config: SessionConfig | None = None,
        env_id: str = SEQUENTIAL,
        preset: str | None = None,
    ) -> SessionSource:
        """Open a bundle, checking every file's hash, and its traces.

        Args:
            bundle: folder that ``greenboard train`` wrote.
            trace: recorded trace, or several; None for the synthetic grid.
            config: session settings; the defaults when None.
            env_id: the environment.
            preset: named settings instead of ``config``.

        Raises:
            BundleError: if the bundle is incomplete or altered.
            TraceError: if a trace cannot be read.
            ComparisonError: if the environment is unknown, or a trace was given twice.
            ConfigError: if the preset is unknown.
        """
        check_env_id(env_id)
        Bundle.open(bundle)
        facts = {
            "manifest_sha256": sha256_of(bundle / MANIFEST),
            "evidence_sha256": sha256_of(bundle / EVIDENCE),
        }
        evidence = EvidenceTable.load(bundle / EVIDENCE)
        return cls.of_evidence(
            evidence, trace=trace, config=config, env_id=env_id, preset=preset, facts=facts
        )

    @classmethod
    def of_evidence(
        cls,
        evidence: EvidenceTable,
        *,
        trace: TraceLike | Sequence[TraceLike] | None = None,
        config: SessionConfig | None = None,
        env_id: str = SEQUENTIAL,
        preset: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> SessionSource:
        """Sessions from a table that is already in memory; see :meth:`open`."""
        return cls(
            evidence=evidence,
            traces=_traces(trace),
            config=_config(config, preset),
            preset=preset,
            bundle_facts={
                "cohort": evidence.cohort, "synthetic": evidence.synthetic, **(facts or {}),
            },
            env_id=check_env_id(env_id),
        )  # fmt: skip

    @property
    def rules(self) -> Rules:
        """The rules behind the environment's id."""
        return RULES_OF[self.env_id]

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that the evidence has."""
        return tuple(int(fold) for fold in np.unique(self.evidence.fold))

    def other_folds(self, held_out: int) -> tuple[int, ...]:
        """The folds to train on when one is held out.

        Raises:
            ComparisonError: if there is no such fold, or no other one.
        """
        if held_out not in self.folds or len(self.folds) < 2:
            raise ComparisonError(
                f"Fold {held_out} cannot be held out; the bundle has folds "
                f"{', '.join(map(str, self.folds))} and at least two are needed."
            )
        return tuple(fold for fold in self.folds if fold != held_out)

    def rows(self, folds: Sequence[int]) -> Int64[np.ndarray, " pool"]:
        """Rows of the evidence table behind the pool indices of these folds' sessions."""
        return np.flatnonzero(np.isin(self.evidence.fold, list(folds)))

    def patients(self, folds: Sequence[int]) -> frozenset[str]:
        """Hashed case ids of these folds' patients: who they are, without saying so."""
        return frozenset(hash_case_id(self.evidence.case_id[row]) for row in self.rows(folds))

    def fitted(self, held_out: Sequence[int], cases: int | None = None) -> SessionSource:
        """The same source with sessions that each held-out fold, and the others, can fill.

        Nobody is drawn twice, so a small fold takes smaller sessions than the default ones.

        Args:
            held_out: the folds that policies are compared on.
            cases: patients in a session; None for the configured number, or for half of the
                smallest pool if that has fewer.

        Raises:
            ComparisonError: if a pool has one class only, or not so many patients.
            ConfigError: if ``cases`` is below 2.
        """
        pools = {}
        for fold in held_out:
            others = self.other_folds(fold)
            pools[f"fold {fold}"] = self._class_sizes((fold,))
            pools[f"folds {', '.join(map(str, others))} together"] = self._class_sizes(others)
        for name, (negative, positive) in pools.items():
            if min(negative, positive) == 0:
                raise ComparisonError(
                    f"The patients of {name} are {positive} positive and {negative} negative; a "
                    f"session needs one of each. Hold out another --fold, of "
                    f"{', '.join(map(str, self.folds))}."
                )
        smallest = min(pools, key=lambda name: sum(pools[name]))
        most = sum(pools[smallest])
        if cases is not None and cases > most:
            raise ComparisonError(
                f"--cases {cases}: there are {most} patients in {smallest}, and nobody is drawn "
                f"twice into a session. Use --cases {most} or less."
            )
        n_cases = cases or self.config.n_cases
        if n_cases > most:
            # Of the whole pool, every session would be of the same patients: nothing would vary.
            n_cases = max(2, most // 2)
        return replace(self, config=replace(self.config, n_cases=n_cases))

    def _class_sizes(self, folds: Sequence[int]) -> tuple[int, int]:
        label = self.evidence.label[self.rows(folds)]
        return int((label == 0).sum()), int((label == 1).sum())

    def training(self, held_out: int, *, price_only: bool = False) -> ReviewSetup:
        """Sessions of the other folds' patients over the trace's training hours.

        Args:
            held_out: the fold whose patients are left out.
            price_only: lift the mask of what the budget cannot pay, to calibrate a price.
        """
        return self._setup(self.other_folds(held_out), held_out, "train", price_only)

    def evaluation(self, held_out: int, *, price_only: bool = False) -> ReviewSetup:
        """Sessions of the held-out patients over the trace's evaluation hours.

        The gain predictor is fitted on the other folds' patients.
        """
        return self._setup((held_out,), held_out, "eval", price_only)

    def _setup(
        self, folds: Sequence[int], held_out: int, period: str, price_only: bool
    ) -> ReviewSetup:
        config = replace(self.config, budget_mode="price") if price_only else self.config
        return build_setup(
            evidence=self.evidence, folds=folds, fit_folds=self.other_folds(held_out),
            trace=self._grid, period=period, config=config, rules=self.rules,
        )  # fmt: skip

    def training_env(self, held_out: int, num_envs: int) -> Sb3VecEnv:
        """The training sessions as SB3 wants them."""
        from envs.sb3 import Sb3VecEnv  # noqa: PLC0415  (imports torch: only training needs it)

        return Sb3VecEnv(
            num_envs, evidence=self.evidence, folds=self.other_folds(held_out),
            trace=self._grid, period="train", config=self.config, rules=self.rules,
        )  # fmt: skip

    @property
    def _grid(self) -> Any:
        return self.traces[0] if len(self.traces) == 1 else self.traces

    def facts(self) -> dict[str, Any]:
        """What names these sessions for good, for provenance."""
        return {
            "environment": self.env_id,
            "bundle": dict(self.bundle_facts),
            "preset": self.preset,
            "trace": {
                "name": " + ".join(trace.name for trace in self.traces),
                "zone": " + ".join(trace.zone for trace in self.traces),
                "basis": str(self.traces[0].basis),
                "synthetic": any(trace.synthetic for trace in self.traces),
                "hours": sum(len(trace) for trace in self.traces),
            },
            "traces": [
                {
                    "name": trace.name,
                    "zone": trace.zone,
                    "basis": str(trace.basis),
                    "synthetic": trace.synthetic,
                    "hours": len(trace),
                }
                for trace in self.traces
            ],
            "session_config": asdict(self.config),
        }
