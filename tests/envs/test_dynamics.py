"""The rules, against a plain session that walks its queue case by case."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.evidence import EvidenceTable
from envs.config import BUDGET_MODES
from envs.dynamics import SessionState, StepOutcome, advance, begin, empty_state, open_actions
from envs.session import SessionDraw, draw_sessions
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence
from envs.view import columns_of, observe

MODALITIES = ("clinical", "genomics", "pathology", "radiomics")


def auc_of(pos: list[float], neg: list[float]) -> float:
    return float(np.mean([[(p > q) + 0.5 * (p == q) for q in neg] for p in pos]))


@dataclass
class PlainSession:
    """The same rules, told with lists and dictionaries."""

    setup: ReviewSetup
    evidence: EvidenceTable
    draw: SessionDraw
    budget_g: float
    position: int = 0
    spent_g: float = 0.0
    invalid_in_visit: int = 0
    queue: list[int] = field(default_factory=list)
    run: dict[int, list[str]] = field(default_factory=dict)
    deferred: set[int] = field(default_factory=set)
    finalised: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = [int(c) for c in self.draw.order[0]]
        self.run = {c: [] for c in self.queue}

    @property
    def case(self) -> int:
        return self.queue[self.position]

    @property
    def now_h(self) -> float:
        return self.position / self.setup.config.slots_per_hour

    @property
    def intensity(self) -> float:
        return float(self.draw.g_per_kwh[0, int(self.now_h)])

    def logit(self, case: int) -> float:
        k = self.evidence.sets.index_of(self.run[case])
        return float(self.evidence.logit[self.draw.patient[0, case], k])

    def auc(self) -> float:
        scores = [self.logit(c) for c in range(self.setup.config.n_cases)]
        return auc_of(scores[: self.setup.n_pos], scores[self.setup.n_pos :])

    def grams(self, action: int) -> float:
        transfer = self.evidence.transfers[action]
        processed = {"clinical", *(name.split("->")[0] for name in self.run[self.case])}
        kwh = float(self.evidence.transfer_kwh[action])
        if transfer.source not in processed:
            kwh += float(
                self.evidence.pipeline_kwh[self.evidence.modalities.index(transfer.source)]
            )
        return kwh * self.intensity

    def is_open(self, action: int) -> bool:
        catalogue = self.setup.catalogue
        if action == catalogue.finalise:
            return True
        if action == catalogue.defer:
            due = self.draw.deadline_h[0, self.case]
            revisit_h = len(self.queue) / self.setup.config.slots_per_hour
            return self.case not in self.deferred and revisit_h <= due
        transfer = self.evidence.transfers[action]
        column = self.evidence.modalities.index(transfer.source)
        has_it = bool(self.evidence.present[self.draw.patient[0, self.case], column])
        free = transfer.name not in self.run[self.case]
        room = len(self.run[self.case]) < catalogue.depth
        return has_it and free and room and self._affords(action)

    def _affords(self, action: int) -> bool:
        masks = "mask" in self.setup.config.budget_mode
        return not masks or self.spent_g + self.grams(action) <= self.budget_g

    def step(self, action: int) -> tuple[float, float, bool]:
        """AUC change, gCO2e, invalid."""
        catalogue = self.setup.catalogue
        if not self.is_open(action):
            self.invalid_in_visit += 1
            if self.invalid_in_visit >= catalogue.n_transfers + 4:
                self.finalised.append(self.case)
                self._next()
            return 0.0, 0.0, True
        if action >= catalogue.n_transfers:
            if action == catalogue.defer:
                self.deferred.add(self.case)
                self.queue.append(self.case)
            else:
                self.finalised.append(self.case)
            self._next()
            return 0.0, 0.0, False
        grams, before = self.grams(action), self.auc()
        self.run[self.case].append(catalogue.names[action])
        self.spent_g += grams
        return self.auc() - before, grams, False

    def _next(self) -> None:
        self.position += 1
        self.invalid_in_visit = 0

    @property
    def over(self) -> bool:
        return self.position == len(self.queue)


def start(setup: ReviewSetup, seed: int) -> tuple[SessionState, SessionDraw]:
    counts = (setup.n_pos, setup.n_neg)
    rng = np.random.default_rng(seed)
    draw = draw_sessions(setup.tables, setup.grid, setup.config, counts, [rng])
    state = empty_state(1, setup)
    begin(state, np.array([0]), draw, setup)
    return state, draw


def play(
    setup: ReviewSetup, state: SessionState, seed: int, lawful: float
) -> list[tuple[int, StepOutcome]]:
    """Random actions, a share of them chosen without looking at the mask, to the end."""
    rng = np.random.default_rng(seed)
    steps = []
    while not state.over[0]:
        mask = open_actions(state, setup)
        choices = np.flatnonzero(mask[0]) if rng.random() < lawful else np.arange(mask.shape[1])
        action = int(rng.choice(choices))
        steps.append((action, advance(state, setup, np.array([action]), mask)))
    return steps


def make_setup(seed: int, n_cases: int, mode: str, budget: float) -> ReviewSetup:
    return build_setup(
        evidence=toy_evidence(80, seed, MODALITIES[: 3 + seed % 2]),
        n_cases=n_cases, budget_mode=mode, budget_fraction=budget, slots_per_hour=1 + seed % 3,
        g_per_auc=5_000.0,
    )  # fmt: skip


GAMES = given(
    seed=st.integers(0, 10_000),
    n_cases=st.integers(2, 20),
    mode=st.sampled_from(BUDGET_MODES),
    budget=st.sampled_from([0.0, 0.1, 0.5, 2.0]),
    lawful=st.sampled_from([0.0, 0.6, 1.0]),
)


@GAMES
@settings(max_examples=12, deadline=None)
def test_every_step_is_that_of_the_plain_session(
    seed: int, n_cases: int, mode: str, budget: float, lawful: float
) -> None:
    setup = make_setup(seed, n_cases, mode, budget)
    state, draw = start(setup, seed)
    evidence = toy_evidence(80, seed, MODALITIES[: 3 + seed % 2])
    plain = PlainSession(setup, evidence, draw, float(state.budget_g[0]))
    rng = np.random.default_rng(seed)
    while not state.over[0]:
        mask = open_actions(state, setup)
        assert mask[0].tolist() == [plain.is_open(a) for a in range(setup.catalogue.n)]
        assert state.case[0] == plain.case
        choices = np.flatnonzero(mask[0]) if rng.random() < lawful else np.arange(mask.shape[1])
        action = int(rng.choice(choices))
        outcome = advance(state, setup, np.array([action]), mask)
        gain, grams, invalid = plain.step(action)
        assert outcome.auc_gain[0] == pytest.approx(gain, abs=1e-12)
        assert outcome.g_co2e[0] == pytest.approx(grams, rel=1e-12)
        assert outcome.invalid[0] == invalid
        assert outcome.lateness_h[0] == 0.0
        assert outcome.terminated[0] == plain.over == state.over[0]
    assert sorted(plain.finalised) == list(range(n_cases))


@GAMES
@settings(max_examples=20, deadline=None)
def test_rewards_sum_to_the_change_of_auc_minus_priced_carbon(
    seed: int, n_cases: int, mode: str, budget: float, lawful: float
) -> None:
    setup = make_setup(seed, n_cases, mode, budget)
    state, _ = start(setup, seed)
    first = state.score[0].copy()
    steps = play(setup, state, seed, lawful)
    base = auc_of(first[: setup.n_pos].tolist(), first[setup.n_pos :].tolist())
    final = auc_of(state.score[0, : setup.n_pos].tolist(), state.score[0, setup.n_pos :].tolist())
    price = 1.0 / setup.config.g_per_auc if "price" in mode else 0.0
    total_g = sum(float(s.g_co2e[0]) for _, s in steps)
    reward = sum(float(s.reward[0]) for _, s in steps)
    assert reward == pytest.approx(final - base - price * total_g, abs=1e-9)
    assert total_g == pytest.approx(float(state.spent_g[0]), rel=1e-12)
    if "mask" in mode:
        assert state.spent_g[0] <= state.budget_g[0]


@GAMES
@settings(max_examples=12, deadline=None)
def test_no_label_reaches_an_observation(
    seed: int, n_cases: int, mode: str, budget: float, lawful: float
) -> None:
    """The same patients with every label flipped look the same at every step."""
    setup = make_setup(seed, n_cases, mode, budget)
    other = flipped(setup, toy_evidence(80, seed, MODALITIES[: 3 + seed % 2]))
    state, draw = start(setup, seed)
    twin = empty_state(1, other)
    begin(twin, np.array([0]), swap_classes(draw, setup.n_pos), other)
    columns, rng = columns_of(setup.layout), np.random.default_rng(seed)
    while not state.over[0]:
        seen, seen_twin = observe(state, setup, columns), observe(twin, other, columns)
        mask, mask_twin = open_actions(state, setup), open_actions(twin, other)
        assert seen.tobytes() == seen_twin.tobytes()
        assert (mask == mask_twin).all()
        choices = np.flatnonzero(mask[0]) if rng.random() < lawful else np.arange(mask.shape[1])
        action = np.array([rng.choice(choices)])
        outcome = advance(state, setup, action, mask)
        outcome_twin = advance(twin, other, action, mask_twin)
        assert outcome.auc_gain[0] == -outcome_twin.auc_gain[0]
    assert twin.over[0]


def flipped(setup: ReviewSetup, evidence: EvidenceTable) -> ReviewSetup:
    """The setup that the flipped labels give; the gain model is what training rows said."""
    other = build_setup(
        evidence=replace(evidence, label=(1 - evidence.label).astype(np.int8)),
        config=setup.config, gain_model=setup.gain_model,
    )  # fmt: skip
    return replace(other, n_pos=setup.n_neg, n_neg=setup.n_pos)


def swap_classes(draw: SessionDraw, n_pos: int) -> SessionDraw:
    """The same session, its cases listed with the other class first."""
    n = draw.patient.shape[1]
    old_of_new = np.concatenate([np.arange(n_pos, n), np.arange(n_pos)])
    new_of_old = np.argsort(old_of_new)
    return replace(
        draw,
        patient=draw.patient[:, old_of_new],
        order=new_of_old[draw.order],
        urgency=draw.urgency[:, old_of_new],
        deadline_h=draw.deadline_h[:, old_of_new],
    )


def test_a_deferred_case_comes_back_once_at_the_end_at_that_hours_intensity() -> None:
    setup = build_setup(evidence=toy_evidence(80, 3), n_cases=8, slots_per_hour=1)
    state, draw = start(setup, 3)
    catalogue = setup.catalogue
    first = int(state.case[0])
    defer, finalise = np.array([catalogue.defer]), np.array([catalogue.finalise])
    mask = open_actions(state, setup)
    assert mask[0, catalogue.defer]
    advance(state, setup, defer, mask)
    for _ in range(7):
        advance(state, setup, finalise, open_actions(state, setup))
    assert state.case[0] == first
    assert state.hour[0] == 8
    mask = open_actions(state, setup)
    assert not mask[0, catalogue.defer]
    run = int(np.flatnonzero(mask[0])[0])
    outcome = advance(state, setup, np.array([run]), mask)
    kwh = setup.tables.step_kwh[0, run]
    assert outcome.g_co2e[0] == kwh * draw.g_per_kwh[0, 8]
    assert not state.over[0]
    advance(state, setup, finalise, open_actions(state, setup))
    assert state.over[0]


def test_a_case_whose_deadline_comes_first_cannot_be_deferred() -> None:
    setup = build_setup(evidence=toy_evidence(80, 3), n_cases=16, slots_per_hour=1)
    state, draw = start(setup, 3)
    late = replace(draw, deadline_h=np.full_like(draw.deadline_h, 15.9))
    begin(state, np.array([0]), late, setup)
    assert not open_actions(state, setup)[0, setup.catalogue.defer]
    due = replace(draw, deadline_h=np.full_like(draw.deadline_h, 16.0))
    begin(state, np.array([0]), due, setup)
    assert open_actions(state, setup)[0, setup.catalogue.defer]


def test_lateness_is_the_hours_past_the_deadline() -> None:
    setup = build_setup(evidence=toy_evidence(80, 3), n_cases=4, slots_per_hour=2)
    state, draw = start(setup, 3)
    begin(state, np.array([0]), replace(draw, deadline_h=np.full_like(draw.deadline_h, 0.8)), setup)
    finalise = np.array([setup.catalogue.finalise])
    late = [
        float(advance(state, setup, finalise, open_actions(state, setup)).lateness_h[0])
        for _ in range(4)
    ]
    assert late == pytest.approx([0.0, 0.0, 0.2, 0.7])


def test_stubborn_invalid_actions_end_the_visit_at_the_cap() -> None:
    setup = build_setup(evidence=toy_evidence(80, 3), n_cases=4, budget_fraction=0.0)
    state, _ = start(setup, 3)
    forbidden = int(np.flatnonzero(setup.tables.step_kwh[0] > 1e-4)[0])
    for step in range(1, setup.catalogue.n_transfers + 5):
        assert state.head[0] == 0
        outcome = advance(state, setup, np.array([forbidden]), open_actions(state, setup))
        assert outcome.invalid[0]
        assert state.n_invalid[0] == step
    assert state.head[0] == 1


def test_the_budget_is_a_share_of_processing_everything_at_the_mean_intensity() -> None:
    evidence = toy_evidence(80, 5)
    setup = build_setup(evidence=evidence, n_cases=10, slots_per_hour=4, budget_fraction=0.25)
    state, draw = start(setup, 5)
    kwh = sum(
        float(evidence.pipeline_kwh[m])
        for patient in draw.patient[0]
        for m in range(1, len(evidence.modalities))
        if evidence.present[patient, m]
    )
    # Ten visits at four an hour take place in hours 0, 1 and 2.
    mean_g = float(np.mean(draw.g_per_kwh[0, :3]))
    assert state.budget_g[0] == pytest.approx(0.25 * kwh * mean_g, rel=1e-12)
