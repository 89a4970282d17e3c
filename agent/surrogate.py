"""What a learned policy does, in words: a small decision tree that imitates its decisions.

The tree is grown on decisions in training sessions and asked again in held-out sessions, so its
fidelity says how much of the network's behaviour the words cover. It asks for what the policy
sees, in physical units. Transfers that process the same modality count as one decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64
from sklearn.tree import DecisionTreeClassifier

from agent.policies.protocol import Policy
from agent.report.findings import Surrogate, SurrogateNode
from agent.results import FoldResult
from agent.rollout import start_sessions
from agent.sessions import SessionSource
from agent.statistics import Estimate
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout
from envs.setup import ReviewSetup

DEPTH = 3
LEAST_SHARE = 0.01
SESSIONS = 60
FIRST_SEED = 3_000_000
REPLICATES = 1000
LEFT_OUT = ("logit", "disagreement", "intensity_uncertainty")
"""Fields that repeat another one, or that nobody would name as a reason."""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What a policy saw and decided.

    Attributes:
        values: physical values of every field of the layout.
        decision: index into the names of :func:`decision_names`.
        session: of which session.
    """

    values: Float32[np.ndarray, "decisions fields"]
    decision: Int64[np.ndarray, " decisions"]
    session: Int64[np.ndarray, " decisions"]

    @classmethod
    def join(cls, parts: Sequence[Decisions]) -> Decisions:
        """Several policies' decisions together; their sessions stay apart."""
        offset, sessions = 0, []
        for part in parts:
            sessions.append(part.session + offset)
            offset += int(part.session.max()) + 1
        return cls(
            values=np.concatenate([part.values for part in parts]),
            decision=np.concatenate([part.decision for part in parts]),
            session=np.concatenate(sessions),
        )


def decision_names(catalogue: ActionCatalogue) -> tuple[str, ...]:
    """What is decided, in words: a modality to bring in, or to finalise, or to defer."""
    sources = dict.fromkeys(transfer.source for transfer in catalogue.transfers)
    return (*(f"bring in {source}" for source in sources), "finalise", "defer")


def _decision_of_action(catalogue: ActionCatalogue) -> Int64[np.ndarray, " actions"]:
    names = decision_names(catalogue)
    actions = [f"bring in {t.source}" for t in catalogue.transfers] + ["finalise", "defer"]
    return np.array([names.index(action) for action in actions])


def physical_values(
    layout: ObservationLayout, observation: Float32[np.ndarray, "batch fields"]
) -> Float32[np.ndarray, "batch fields"]:
    """Every field in its unit."""
    columns = [layout.physical(observation, name) for name in layout.names]
    return np.stack(columns, axis=1).astype(np.float32)


def watch(policy: Policy, setup: ReviewSetup, seeds: Sequence[int]) -> Decisions:
    """Every decision of a policy in these sessions that left it a choice."""
    engine = start_sessions(setup, seeds)
    group = _decision_of_action(setup.catalogue)
    seen: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    policy.reset(len(seeds), seed=int(seeds[0]))
    while not engine.over.all():
        mask, observation = engine.mask, engine.observe()
        action = policy.act(observation, mask)
        choice = ~engine.over & (mask.sum(axis=1) > 1)
        rows = np.flatnonzero(choice)
        values = physical_values(setup.layout, observation[rows])
        seen.append((values, group[action[rows]], rows))
        engine.step(action)
    values, decisions, sessions = (np.concatenate(column) for column in zip(*seen))
    return Decisions(values=values, decision=decisions, session=sessions)


def _fields(layout: ObservationLayout) -> list[int]:
    return [i for i, name in enumerate(layout.names) if name not in LEFT_OUT]


def _phrase(name: str) -> str:
    """A field in a reader's words."""
    words = {
        "entropy": "uncertainty", "slack_h": "time to the deadline", "cases_left": "cases left",
        "budget_left": "share of the budget left", "budget_left_g_co2e": "budget left",
        "time_left": "time left", "intensity_now": "grid intensity now", "waiting": "cases waiting",
        "to_come": "cases still to come", "ahead": "waiting cases that would gain more",
        "slots_left_now": "slots left this hour", "slots_left": "slots left until it is due",
        "deferred": "put off before",
    }  # fmt: skip
    if name in words:
        return words[name]
    groups = {
        "gain_": "predicted gain of ", "energy_": "energy of ", "g_co2e_": "emissions of ",
        "setup_": "start-up energy of ", "sharing_": "cases that would share the run of ",
        "present_": "has ", "processed_": "has brought in ", "run_": "has run ",
        "quality_": "quality of ", "intensity_lead_": "grid intensity in ",
    }  # fmt: skip
    for prefix, start in groups.items():
        if name.startswith(prefix):
            return start + name.removeprefix(prefix)
    return name


FLAGS = ("present_", "processed_", "run_", "deferred")


def _condition(layout: ObservationLayout, field: int, threshold: float, *, low: bool) -> str:
    name, unit = layout.names[field], layout.units[field]
    phrase = _phrase(name)
    if name.startswith(FLAGS):
        return f"not {phrase}" if low else phrase
    shown = f"{threshold:.3g}" + ("" if unit == "1" else f" {unit}")
    return f"{phrase} {'at most' if low else 'above'} {shown}"


def _agreement(
    right: Bool[np.ndarray, " decisions"],
    session: Int64[np.ndarray, " decisions"],
    rng: np.random.Generator,
) -> Estimate:
    """Share of decisions, with an interval that redraws sessions."""
    n = np.bincount(session).astype(np.float64)
    hits = np.bincount(session, weights=right, minlength=len(n))
    used = n > 0
    n, hits = n[used], hits[used]
    counts = rng.multinomial(len(n), np.full(len(n), 1.0 / len(n)), size=REPLICATES)
    redrawn = (counts @ hits) / (counts @ n)
    return Estimate.of(float(right.mean()), redrawn, len(right))


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """What is needed to put a fitted tree into words."""

    tree: DecisionTreeClassifier
    layout: ObservationLayout
    names: tuple[str, ...]
    fields: list[int]
    shown: Decisions

    def nodes(self) -> tuple[SurrogateNode, ...]:
        """The tree's nodes in scikit-learn's order, the root first."""
        inner = self.tree.tree_
        path = self.tree.decision_path(self.shown.values[:, self.fields])
        passed = np.asarray(path.sum(axis=0)).ravel()
        leaf = self.tree.apply(self.shown.values[:, self.fields])
        found = []
        for i in range(inner.node_count):
            share = float(passed[i] / len(leaf))
            if inner.children_left[i] >= 0:
                found.append(
                    SurrogateNode(
                        words=self._question(i, low=True),
                        share=share,
                        yes=int(inner.children_left[i]),
                        no=int(inner.children_right[i]),
                    )
                )
                continue
            said, here = self._decision(i), leaf == i
            same = self.shown.decision[here] == said
            agreement = float(same.mean()) if here.any() else None
            found.append(SurrogateNode(words=self.names[said], share=share, agreement=agreement))
        return tuple(found)

    def _decision(self, node: int) -> int:
        return int(self.tree.classes_[self.tree.tree_.value[node][0].argmax()])

    def _question(self, node: int, *, low: bool) -> str:
        inner = self.tree.tree_
        field = self.fields[int(inner.feature[node])]
        return _condition(self.layout, field, float(inner.threshold[node]), low=low)

    def sentences(self, nodes: Sequence[SurrogateNode]) -> tuple[str, ...]:
        """One a leaf, the most frequent first."""
        found: list[tuple[float, str]] = []

        def descend(node: int, conditions: tuple[str, ...]) -> None:
            here = nodes[node]
            if here.yes is not None and here.no is not None:
                descend(here.yes, (*conditions, self._question(node, low=True)))
                descend(here.no, (*conditions, self._question(node, low=False)))
                return
            where = "Always" if not conditions else f"Where {', '.join(conditions)}"
            held = "" if here.agreement is None else f"; {here.agreement:.0%} of them as it does"
            found.append(
                (here.share, f"{where}: {here.words} ({here.share:.0%} of decisions{held}).")
            )

        descend(0, ())
        return tuple(sentence for _, sentence in sorted(found, key=lambda pair: -pair[0]))


def surrogates(
    source: SessionSource, results: Sequence[FoldResult], rng: np.random.Generator
) -> dict[str, Surrogate]:
    """A tree for each learned policy: all its training seeds on all compared folds together.

    Args:
        source: gives the training and the held-out sessions.
        results: of the comparison, with the policies in them.
        rng: source of the intervals' redraws.
    """
    found = {}
    for contestant in results[0].contestants:
        if not contestant.learned:
            continue
        parts: dict[str, list[Decisions]] = {"train": [], "eval": []}
        for result in results:
            policies = next(c.policies for c in result.contestants if c.name == contestant.name)
            share = max(1, SESSIONS // (len(policies) * len(results)))
            sessions = {
                "train": source.training(result.fold), "eval": source.evaluation(result.fold)
            }  # fmt: skip
            for i, policy in enumerate(policies):
                seeds = range(FIRST_SEED + i * share, FIRST_SEED + (i + 1) * share)
                for period, setup in sessions.items():
                    parts[period].append(watch(policy, setup, seeds))
        grown, asked = (Decisions.join(parts[period]) for period in ("train", "eval"))
        layout = source.training(results[0].fold)
        found[contestant.name] = surrogate(contestant.name, layout, grown, asked, rng=rng)
    return found


def surrogate(
    name: str,
    setup: ReviewSetup,
    learned: Decisions,
    held_out: Decisions,
    *,
    rng: np.random.Generator,
    depth: int = DEPTH,
) -> Surrogate:
    """Grow the tree on some decisions and ask it again on others.

    Args:
        name: whose decisions.
        setup: any of the sessions, for the names of fields and actions.
        learned: decisions in training sessions.
        held_out: decisions in held-out sessions.
        rng: source of the intervals' redraws.
        depth: most questions before a decision.
    """
    fields = _fields(setup.layout)
    tree = DecisionTreeClassifier(
        max_depth=depth, min_samples_leaf=LEAST_SHARE, random_state=0
    ).fit(learned.values[:, fields], learned.decision)
    said = tree.predict(held_out.values[:, fields])
    common = np.bincount(learned.decision).argmax()
    reading = _Reading(
        tree=tree,
        layout=setup.layout,
        names=decision_names(setup.catalogue),
        fields=fields,
        shown=held_out,
    )
    nodes = reading.nodes()
    return Surrogate(
        policy=name,
        depth=depth,
        fidelity=_agreement(said == held_out.decision, held_out.session, rng),
        most_common=_agreement(held_out.decision == common, held_out.session, rng),
        sentences=reading.sentences(nodes),
        n_decisions=len(learned.decision),
        nodes=nodes,
    )
