"""Arrivals, hours, slots and shared runs: by hand, and against a plain worklist told in lists."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from distill.evidence import EvidenceTable
from envs.dynamics import advance, begin, empty_state, open_actions
from envs.session import SessionDraw, draw_sessions
from envs.setup import ReviewSetup, build_setup
from envs.state import SessionState, StepOutcome
from envs.toy import toy_evidence

EVIDENCE = toy_evidence(80, 3)


def whole() -> EvidenceTable:
    """A table in which nobody lacks a modality, so that every pipeline can run."""
    table = toy_evidence(80, 3)
    present = np.ones_like(table.present)
    return replace(table, present=present, logit=np.nan_to_num(table.logit))


def drawn(setup: ReviewSetup, seed: int = 0) -> SessionDraw:
    counts, rng = (setup.n_pos, setup.n_neg), np.random.default_rng(seed)
    return draw_sessions(setup.tables, setup.grid, setup.config, counts, [rng], rules="worklist")


class Board:
    """One session whose arrivals and deadlines are given, stepped by the name of the action."""

    def __init__(self, arrival: list[float], due: list[float], hours: int, **settings: object):
        self.setup = build_setup(
            evidence=whole(), rules="worklist", n_cases=len(arrival),
            **{"session_h_max": 24, "budget_fraction": 1e6, **settings},
        )  # fmt: skip
        draw = replace(
            drawn(self.setup),
            arrival_h=np.array([arrival]),
            deadline_h=np.array([due]),
            session_h=np.array([hours]),
        )
        self.draw, self.state = draw, empty_state(1, self.setup)
        begin(self.state, np.array([0]), draw, self.setup)

    @property
    def at(self) -> tuple[int, int, int]:
        """Case under review, hour, slots left in it."""
        return int(self.state.case[0]), int(self.state.hour[0]), int(self.state.slots[0])

    def is_open(self, name: str) -> bool:
        return bool(open_actions(self.state, self.setup)[0, self.setup.catalogue.index(name)])

    def step(self, name: str) -> StepOutcome:
        action = np.array([self.setup.catalogue.index(name)])
        return advance(self.state, self.setup, action, open_actions(self.state, self.setup))


def test_cases_come_up_when_they_are_there_earliest_deadline_first() -> None:
    board = Board([0.0, 0.0, 2.5, 2.5], [20.0, 10.0, 9.0, 8.0], 24)
    seen = [board.at[:2]]
    for _ in range(3):
        assert not board.step("finalise").terminated[0]
        seen.append(board.at[:2])
    # Cases 2 and 3 arrive at 2.5 h and so come up in hour 3; hours 1 and 2 are skipped.
    assert seen == [(1, 0), (0, 0), (3, 3), (2, 3)]
    assert board.step("finalise").terminated[0]
    assert board.state.closed_h[0].tolist() == [0.0, 0.0, 3.0, 3.0]


def test_equal_deadlines_fall_to_the_random_order_not_to_the_class() -> None:
    first = set()
    for seed in range(20):
        setup = build_setup(evidence=whole(), rules="worklist", n_cases=4)
        draw = drawn(setup, seed)
        draw = replace(draw, arrival_h=np.zeros((1, 4)), deadline_h=np.full((1, 4), 9.0))
        state = empty_state(1, setup)
        begin(state, np.array([0]), draw, setup)
        assert state.case[0] == draw.order[0, 0]
        first.add(int(state.case[0]))
    assert first == {0, 1, 2, 3}


def test_a_transfer_takes_a_slot_and_the_case_stays_until_it_is_closed() -> None:
    board = Board([0.0, 0.0, 0.0], [5.0, 6.0, 7.0], 24, slots_per_hour=2)
    assert board.at == (0, 0, 2)
    board.step("pathology->clinical")
    assert board.at == (0, 0, 1)
    assert board.is_open("genomics->clinical")
    board.step("genomics->clinical")
    assert board.at == (0, 0, 0)
    transfers = board.setup.layout.transfers
    assert not any(board.is_open(t) for t in transfers)
    assert board.is_open("finalise")
    # The hour has no slot left: the next case comes up in the next hour, with two new ones.
    board.step("finalise")
    assert board.at == (1, 1, 2)
    board.step("pathology->clinical")
    board.step("finalise")
    # One slot is left, so the hour goes on.
    assert board.at == (2, 1, 1)


def test_put_off_cases_come_up_in_the_next_hour_as_often_as_wished_until_they_are_due() -> None:
    board = Board([0.0, 0.0], [3.5, 2.0], 24)
    assert board.at == (1, 0, 4)
    board.step("defer")
    assert board.at == (0, 0, 4)
    board.step("defer")
    # Nobody else waits in hour 0.
    assert board.at == (1, 1, 4)
    board.step("defer")
    board.step("defer")
    # Case 1 is due at 2: hour 3 would be past that.
    assert board.at == (1, 2, 4)
    assert not board.is_open("defer")
    board.step("finalise")
    assert board.is_open("defer")
    board.step("defer")
    assert board.at == (0, 3, 4)
    assert not board.is_open("defer")
    assert board.state.was_deferred[0].all()


def test_at_the_end_open_cases_are_finalised_as_they_stand() -> None:
    board = Board([0.0, 0.0, 1.5], [4.0, 1.0, 2.5], 3, slots_per_hour=1)
    outcomes = []
    for name in ("pathology->clinical", "finalise", "pathology->clinical", "finalise"):
        outcomes.append(board.step(name))
    # Case 1 in hour 0; then case 0 in hour 1, and case 2 (there at 1.5) in hour 2, the last one.
    assert board.at == (2, 2, 1)
    assert not board.is_open("defer")
    last = board.step("pathology->clinical")
    assert not last.terminated[0]
    assert board.step("finalise").terminated[0]
    assert board.state.closed_h[0].tolist() == [1.0, 0.0, 2.0]
    assert not any(float(o.lateness_h[0]) for o in outcomes)


def test_lateness_is_counted_case_by_case_and_has_a_price_only_if_asked_for() -> None:
    """One slot an hour, four cases due at once: those who wait are late."""
    for price in (0.0, 0.001):
        board = Board(
            [0.0] * 4, [1.5] * 4, 3,
            slots_per_hour=1, auc_per_late_h=price, budget_mode="cmdp",
        )  # fmt: skip
        late, rewards, gains = [], [], []
        while not board.state.over[0]:
            transfer = board.step("pathology->clinical")
            closing = board.step("finalise")
            late.append(float(closing.lateness_h[0]))
            rewards.append(float(closing.reward[0]))
            gains.append(float(transfer.reward[0] - transfer.auc_gain[0]))
        # Hours 0, 1 and 2; the session ends at 3 with the fourth case open: 0.5 + 1.5 h late.
        assert late == [0.0, 0.0, 2.0]
        assert rewards == [0.0, 0.0, -2.0 * price]
        assert gains == [0.0, 0.0, 0.0]
        assert board.state.lateness_h[0] == 2.0
        assert board.state.n_late[0] == 2
        assert sorted(board.state.case_lateness_h[0].tolist()) == [0.0, 0.0, 0.5, 1.5]
        assert board.state.n_closed[0] == 4


def test_a_pipelines_run_is_started_once_an_hour() -> None:
    board = Board([0.0] * 3, [9.0, 10.0, 11.0], 24, slots_per_hour=3, setup_factor=4.0)
    g_now, kwh = board.draw.g_per_kwh[0], board.setup.tables.step_kwh
    a, b = (board.setup.catalogue.index(n) for n in ("pathology->clinical", "genomics->clinical"))
    pathology = board.setup.outlook.pipeline_kwh[2]
    genomics = board.setup.outlook.pipeline_kwh[1]
    assert board.step("pathology->clinical").g_co2e[0] == (kwh[0, a] + 4 * pathology) * g_now[0]
    # The second bridge of a processed modality starts nothing.
    bridge = board.step("pathology->genomics").g_co2e[0]
    assert bridge == pytest.approx(1e-5 * g_now[0])
    board.step("finalise")
    # The second case shares the run; another pipeline's run is its own.
    assert board.step("pathology->clinical").g_co2e[0] == kwh[0, a] * g_now[0]
    board.step("finalise")
    assert board.at == (2, 1, 3)
    # Another hour, another run.
    assert board.step("pathology->clinical").g_co2e[0] == (kwh[0, a] + 4 * pathology) * g_now[1]
    after = int(board.setup.tables.next_set[0, a])
    assert board.step("genomics->clinical").g_co2e[0] == (kwh[after, b] + 4 * genomics) * g_now[1]


def test_the_budget_holds_runs_and_the_mask_counts_their_start() -> None:
    board = Board([0.0] * 4, [9.0] * 4, 10, setup_factor=4.0, budget_fraction=0.25)
    setup, draw = board.setup, board.draw
    each_kwh = setup.tables.everything_kwh[draw.patient[0]].sum() * (1 + 4.0 / 4)
    mean_g = draw.g_per_kwh[0, :10].mean()
    assert board.state.budget_g[0] == pytest.approx(0.25 * each_kwh * mean_g, rel=1e-12)
    a = setup.catalogue.index("pathology->clinical")
    start_kwh = setup.tables.step_kwh[0, a] + setup.setup_kwh[0, a]
    left_kwh = board.state.budget_g[0] / draw.g_per_kwh[0, 0]
    for spare, is_open in ((1e-9, True), (-1e-9, False)):
        board.state.spent_g[0] = (left_kwh - start_kwh - spare) * draw.g_per_kwh[0, 0]
        assert board.is_open("pathology->clinical") == is_open


@dataclass
class PlainWorklist:
    """The same rules, told with lists and sets, hour by hour."""

    setup: ReviewSetup
    draw: SessionDraw
    budget_g: float
    hour: int = 0
    slots: int = 0
    spent_g: float = 0.0
    case: int | None = None
    closed: dict[int, float] = field(default_factory=dict)
    seen_this_hour: set[int] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    run: dict[int, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slots = self.setup.config.slots_per_hour
        self.next_case()

    @property
    def over(self) -> bool:
        return self.case is None

    def next_case(self) -> None:
        """The next one of this hour, or of a later one; None at the end."""
        everyone = range(self.setup.config.n_cases)
        while self.hour < self.draw.session_h[0] and len(self.closed) < len(everyone):
            waiting = [
                c for c in self.draw.order[0].tolist()
                if self.draw.arrival_h[0, c] <= self.hour
                and c not in self.closed and c not in self.seen_this_hour
            ]  # fmt: skip
            if waiting and self.slots > 0:
                self.case = min(waiting, key=lambda c: self.draw.deadline_h[0, c])
                self.seen_this_hour.add(self.case)
                return
            self.hour += 1
            self.slots = self.setup.config.slots_per_hour
            self.seen_this_hour, self.running = set(), set()
        for c in everyone:
            self.closed.setdefault(c, float(self.draw.session_h[0]))
        self.case = None

    def kwh(self, transfer: str) -> tuple[float, str | None]:
        """Energy now, and the pipeline that has to run for it."""
        source = transfer.split("->", maxsplit=1)[0]
        done = {"clinical", *(name.split("->")[0] for name in self.run.get(self.case, []))}
        column = EVIDENCE.modalities.index(source)
        kwh = float(EVIDENCE.transfer_kwh[0])
        if source in done:
            return kwh, None
        pipeline = float(EVIDENCE.pipeline_kwh[column])
        start = 0.0 if source in self.running else self.setup.config.setup_factor * pipeline
        return kwh + pipeline + start, source

    def is_open(self, name: str) -> bool:
        if name == "finalise":
            return True
        if name == "defer":
            later = self.hour + 1
            return later <= self.draw.deadline_h[0, self.case] and later < self.draw.session_h[0]
        patient = self.draw.patient[0, self.case]
        source = name.split("->", maxsplit=1)[0]
        here = bool(EVIDENCE.present[patient, EVIDENCE.modalities.index(source)])
        grams = self.kwh(name)[0] * self.draw.g_per_kwh[0, self.hour]
        affords = self.spent_g + grams <= self.budget_g
        return here and name not in self.run.get(self.case, []) and self.slots > 0 and affords

    def step(self, name: str) -> float:
        """Take an open action; its emissions."""
        if name in ("finalise", "defer"):
            if name == "finalise":
                self.closed[self.case] = float(self.hour)
            self.next_case()
            return 0.0
        kwh, pipeline = self.kwh(name)
        if pipeline is not None:
            self.running.add(pipeline)
        self.run.setdefault(self.case, []).append(name)
        self.slots -= 1
        grams = kwh * float(self.draw.g_per_kwh[0, self.hour])
        self.spent_g += grams
        return grams


@pytest.mark.parametrize("seed", range(12))
def test_every_step_is_that_of_the_plain_worklist(seed: int) -> None:
    rng = np.random.default_rng(seed)
    setup = build_setup(
        evidence=EVIDENCE, rules="worklist", n_cases=int(rng.integers(2, 16)),
        slots_per_hour=1 + seed % 3, session_h_min=1 + seed, session_h_max=14 + seed,
        setup_factor=4.0 * (seed % 2), backlog=rng.random(), arrival_share=rng.random(),
        slack_min_h=1.0, slack_max_h=float(rng.integers(2, 12)), urgent_slack_h=0.5,
        urgent_fraction=0.3, budget_fraction=float(rng.choice([0.05, 0.3, 2.0])),
    )  # fmt: skip
    draw, state = drawn(setup, seed), empty_state(1, setup)
    begin(state, np.array([0]), draw, setup)
    plain = PlainWorklist(setup, draw, float(state.budget_g[0]))
    names = setup.catalogue.names
    eager = rng.choice([0.2, 1.0, 5.0])
    while not state.over[0]:
        mask = open_actions(state, setup)
        assert (int(state.case[0]), int(state.hour[0]), int(state.slots[0])) == (
            plain.case, plain.hour, plain.slots,
        )  # fmt: skip
        assert mask[0].tolist() == [plain.is_open(name) for name in names]
        weight = mask[0] * np.array([eager] * (len(names) - 2) + [1.0, 1.0])
        action = int(rng.choice(len(names), p=weight / weight.sum()))
        outcome = advance(state, setup, np.array([action]), mask)
        assert outcome.g_co2e[0] == pytest.approx(plain.step(names[action]), rel=1e-12)
        assert outcome.terminated[0] == plain.over
    check_end(state, plain)


def check_end(state: SessionState, plain: PlainWorklist) -> None:
    """Everybody was closed once, at the same hour; lateness follows."""
    closed = [plain.closed[c] for c in range(len(plain.closed))]
    assert state.closed_h[0].tolist() == closed
    late = [max(h - d, 0.0) for h, d in zip(closed, plain.draw.deadline_h[0])]
    assert state.lateness_h[0] == pytest.approx(math.fsum(late), abs=1e-9)
    assert state.n_late[0] == sum(x > 0.0 for x in late)


def test_arrivals_deadlines_and_lengths_are_drawn_as_documented() -> None:
    setup = build_setup(evidence=toy_evidence(300, 0), rules="worklist", urgent_fraction=0.2)
    rngs = [np.random.default_rng(seed) for seed in range(200)]
    draw = draw_sessions(
        setup.tables, setup.grid, setup.config, (setup.n_pos, setup.n_neg), rngs, rules="worklist"
    )
    assert set(draw.session_h.tolist()) <= set(range(24, 73))
    assert draw.session_h.min() < 30 < 66 < draw.session_h.max()
    assert ((draw.arrival_h == 0.0).sum(axis=1) == 16).all()
    part = draw.arrival_h / draw.session_h[:, None]
    later = part[part > 0]
    assert later.max() <= 0.75
    assert later.mean() == pytest.approx(0.375, abs=0.01)
    slack = draw.deadline_h - draw.arrival_h
    capped = draw.deadline_h == draw.session_h[:, None]
    urgent = draw.urgency > 0.8
    assert (draw.deadline_h <= draw.session_h[:, None]).all()
    assert slack[urgent & ~capped] == pytest.approx(4.0)
    assert slack[~urgent & ~capped].min() >= 18.0 - 1e-9
    assert slack.max() <= 24.0
    # Who waits from the start, and who is urgent, says nothing about the class.
    first = draw.arrival_h == 0.0
    assert first[:, : setup.n_pos].mean() == pytest.approx(0.25, abs=0.02)
