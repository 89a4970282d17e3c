"""Getting the policies of a comparison ready for one held-out fold: calibrated, trained, opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.calibration import CalibratedPrice, calibrate, calibrate_price
from agent.errors import ComparisonError
from agent.policies.files import LEARNED_KINDS, PolicyFile, read_patients, read_policy, write_policy
from agent.policies.plan_files import planner_kind, write_plan
from agent.policies.plan_settings import KINDS
from agent.policies.protocol import Policy
from agent.policies.registry import check_policy_name, make_policy, open_policy
from agent.sessions import SessionSource
from envs.catalogue import ActionCatalogue
from envs.setup import ReviewSetup

PRICE = "price"
SAME_BUNDLE = "same_bundle"
CALIBRATION_SESSIONS = 128
CLONED = ("cloned-ppo",)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the units done since the last call, and the units in all."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One policy as it enters the comparison on one fold.

    Attributes:
        name: its name in the report.
        policies: one, or one for each training seed.
        learned: whether it was trained.
        details: what belongs to it alone: its price, its training.
    """

    name: str
    policies: tuple[Policy, ...]
    learned: bool
    details: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How contestants are prepared.

    Attributes:
        source: bundle and trace.
        held_out: the fold that they are compared on.
        out: receives ``policies/`` with what was calibrated and trained.
        training_seeds: seeds of the policies that are trained here.
        ppo_steps: environment steps of each training; None for the algorithm's own.
        warm_start: which policy ``cloned-ppo`` imitates first; ``none`` for its own choice.
        seed: seeds what is random in a policy.
        progress: told of training.
    """

    source: SessionSource
    held_out: int
    out: Path
    training_seeds: Sequence[int]
    ppo_steps: int | None
    warm_start: str
    seed: int
    progress: Progress

    @property
    def evaluation(self) -> ReviewSetup:
        """The sessions that will be compared on: their layout and catalogue."""
        return self.source.evaluation(self.held_out)


def check_names(names: Sequence[str], catalogue: ActionCatalogue) -> None:
    """Refuse a name that is no policy before anything is drawn, calibrated or trained.

    Raises:
        PolicyError: if there is no such policy; the message suggests the nearest.
    """
    for name in names:
        if name not in LEARNED_KINDS:
            check_policy_name(name, catalogue)


def prepare(names: Sequence[str], how: Preparation) -> tuple[Contestant, ...]:
    """Every policy that was asked for, ready to act.

    Raises:
        ComparisonError: if two have the same name, or one was trained on the held-out patients, or
            nothing shows that it was not.
        PolicyError: if one is unknown or cannot be opened.
    """
    setup = how.evaluation
    contestants = tuple(_prepare_one(name, how, setup) for name in names)
    found = [contestant.name for contestant in contestants]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise ComparisonError(f"Policy {twice[0]!r} was asked for twice; name each once.")
    return contestants


def _prepare_one(name: str, how: Preparation, setup: ReviewSetup) -> Contestant:
    if name == PRICE:
        return _priced(how, setup)
    if name in KINDS:
        return _planned(name, how, setup)
    if name in LEARNED_KINDS:
        return _trained(name, how, setup)
    if "/" in name or Path(name).is_dir():
        return _opened(Path(name), how, setup)
    policy = make_policy(name, setup.layout, setup.catalogue, how.seed, config=how.source.config)
    return Contestant(name=name, policies=(policy,), learned=False, details={})


def _priced(how: Preparation, setup: ReviewSetup) -> Contestant:
    training = how.source.training(how.held_out, price_only=True)
    price = calibrate_price(training, range(CALIBRATION_SESSIONS))
    directory = write_price(how, setup, price)
    policy = open_policy(directory, setup.layout, setup.catalogue)
    return Contestant(
        name=PRICE, policies=(policy,), learned=False, details={"price": price.to_json()}
    )


def write_price(how: Preparation, setup: ReviewSetup, price: CalibratedPrice) -> Path:
    """Keep the calibrated price as a policy directory, so that it can be served."""
    stored = PolicyFile.for_layout(
        setup.layout,
        setup.catalogue,
        kind="price",
        name=PRICE,
        g_per_auc=price.g_per_auc,
        provenance={**training_facts(how.source, how.held_out), **price.to_json()},
    )
    directory = how.out / "policies" / f"price-fold{how.held_out}"
    patients = how.source.patients(how.source.other_folds(how.held_out))
    return write_policy(directory, stored, patients=patients)


def training_facts(source: SessionSource, held_out: int) -> dict[str, Any]:
    """Provenance of anything trained or calibrated with one fold held out."""
    return {
        **source.facts(),
        "period": "train",
        "held_out_fold": held_out,
        "folds": list(source.other_folds(held_out)),
    }


def _planned(name: str, how: Preparation, setup: ReviewSetup) -> Contestant:
    kind = planner_kind(name)
    training = how.source.training(how.held_out)
    policy = calibrate(name, training, range(CALIBRATION_SESSIONS))
    directory = write_plan(
        how.out / "policies" / f"{name}-fold{how.held_out}",
        kind,
        policy,
        provenance=training_facts(how.source, how.held_out),
        patients=how.source.patients(how.source.other_folds(how.held_out)),
    )
    opened = open_policy(directory, setup.layout, setup.catalogue)
    settings = policy.settings.model_dump()
    return Contestant(name=name, policies=(opened,), learned=False, details={"settings": settings})


def _trained(name: str, how: Preparation, setup: ReviewSetup) -> Contestant:
    # importing them brings torch and SB3 along: only a comparison that trains needs that
    from agent.algorithms import training_preset, with_teacher  # noqa: PLC0415
    from agent.studies import train_policies  # noqa: PLC0415

    steps = {} if how.ppo_steps is None else {"steps": how.ppo_steps}
    config = training_preset(name, **steps)
    if name in CLONED:
        config = with_teacher(config, how.warm_start)
    policies = []
    for seed in how.training_seeds:
        label = f"fold {how.held_out}: train {name}, seed {seed}"

        def report(done: int, label: str = label, total: int = config.total_steps) -> None:
            how.progress(label, done, total)

        (directory,) = train_policies(
            how.source, how.held_out, name, (seed,), how.out / "policies",
            config=config, progress=report,
        )  # fmt: skip
        policies.append(open_policy(directory, setup.layout, setup.catalogue))
    details = {
        "training": {
            "steps": config.total_steps,
            "seeds": list(how.training_seeds),
            "warm_start": config.warm_start,
        }
    }
    return Contestant(name=name, policies=tuple(policies), learned=True, details=details)


def _opened(directory: Path, how: Preparation, setup: ReviewSetup) -> Contestant:
    stored = read_policy(directory, setup.layout, setup.catalogue)
    same = _same_bundle(stored, how.source)
    trained_on = _trained_on(directory, stored, how.source)
    if trained_on is None:
        raise ComparisonError(
            f"{directory} is of another bundle and does not say which patients it was trained on, "
            f"so nothing shows that those of fold {how.held_out} are new to it. Train it again "
            "with 'greenboard rl train'."
        )
    held_out = how.source.patients((how.held_out,))
    seen = len(held_out & trained_on)
    if seen:
        other = stored.provenance.get("held_out_fold")
        advice = f"Use --fold {other}." if same else "Train one on this bundle."
        raise ComparisonError(
            f"{directory} was trained on {seen} of the {len(held_out)} patients of fold "
            f"{how.held_out} (by case id); comparing it on them would flatter it. {advice}"
        )
    return Contestant(
        name=directory.name,
        policies=(open_policy(directory, setup.layout, setup.catalogue),),
        learned=stored.kind in LEARNED_KINDS,
        details={
            "directory": str(directory),
            SAME_BUNDLE: same,
            "n_training_patients": len(trained_on),
        },
    )


def _same_bundle(stored: PolicyFile, source: SessionSource) -> bool:
    theirs = stored.provenance.get("bundle", {}).get("evidence_sha256")
    return bool(theirs == source.bundle_facts.get("evidence_sha256"))


def _trained_on(
    directory: Path, stored: PolicyFile, source: SessionSource
) -> frozenset[str] | None:
    """Hashed case ids of those whom a policy was trained on; None where nobody can tell."""
    if stored.patients is not None:
        return read_patients(directory, stored.patients)
    # Policies of earlier versions name folds only, which mean something in their own bundle.
    folds = stored.provenance.get("folds")
    return source.patients(folds) if folds and _same_bundle(stored, source) else None
