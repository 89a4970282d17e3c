"""A review session in words: what the agent sees, and what became of its last action.

Drawn from the observation and the mask alone, besides the clock: no label, and no credit of a
single step, which would give the label away. The session's totals are shown once it is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32

from envs.config import LEADS_H
from envs.dynamics import flow_of
from envs.engine import ReviewEngine
from envs.observation import ObservationLayout
from envs.setup import ReviewSetup
from envs.state import StepOutcome

BLOCKS = "▁▂▃▄▅▆▇█"
BAR_CELLS = 20


@dataclass(frozen=True, kw_only=True)
class LastStep:
    """What the last action was, and what came of it.

    Attributes:
        action: its name.
        probability_before: of the case it was taken for, before.
        probability_after: the same afterwards.
        g_co2e: emitted by it.
        invalid: whether the mask forbade it, so that nothing happened.
    """

    action: str
    probability_before: float
    probability_after: float
    g_co2e: float
    invalid: bool

    @property
    def words(self) -> str:
        """The step as half a sentence."""
        if self.invalid:
            return f"{self.action}: closed, nothing happened"
        if "->" not in self.action:
            return f"{self.action}, at p {self.probability_before:.3f}"
        moved = f"p {self.probability_before:.3f} -> {self.probability_after:.3f}"
        return f"{self.action}: {moved}, {self.g_co2e:,.1f} gCO2e"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One moment of one session.

    Attributes:
        title: what is shown: rules, patients, grid; says what is synthetic or a stress test.
        layout: the observation's fields.
        observation: the scaled vector that the agent was given.
        mask: which actions are open.
        actions: their names.
        hour: hours since the session began.
        length_h: the session's length, hours.
        last: the last action; None before the first.
        totals: the session's totals once it is over, else empty.
    """

    title: str
    layout: ObservationLayout
    observation: Float32[np.ndarray, " fields"]
    mask: Bool[np.ndarray, " actions"]
    actions: tuple[str, ...]
    hour: float
    length_h: float
    last: LastStep | None = None
    totals: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def seen(self) -> dict[str, float]:
        """Every field's physical value."""
        return {n: value for n, (value, _) in self.layout.explain(self.observation).items()}

    @property
    def forecast(self) -> tuple[float, ...]:
        """Intensity now and as forecast for each lead, gCO2e/kWh."""
        leads = (self.seen[f"intensity_lead_{h}h"] for h in LEADS_H)
        return (self.seen["intensity_now"], *leads)

    @property
    def ending(self) -> str:
        """The session's totals in one line; empty while it goes on."""
        if not self.totals:
            return ""
        base, final = self.totals["session_auc_base"], self.totals["session_auc_final"]
        return (
            f"over: AUC {base:.3f} -> {final:.3f}, {self.totals['total_g_co2e']:,.0f} gCO2e of "
            f"{self.totals['budget_g']:,.0f}, {self.totals.get('n_late', 0):.0f} late"
        )


def title_of(setup: ReviewSetup, trace: str) -> str:
    """Rules, patients and grid in one line, with what is made up said aloud.

    Args:
        setup: says the rules and whose patients they are.
        trace: name of the session's trace; a stressed one says so itself.
    """
    patients = "synthetic patients" if setup.synthetic else f"patients of {setup.cohort}"
    grid = "synthetic carbon intensity" if setup.grid.synthetic else "carbon intensity"
    return f"Review ({setup.rules}) of {patients}, {grid} {trace}"


def last_step(action: str, before: float, after: float, outcome: StepOutcome) -> LastStep:
    """Put the first session's last action down.

    Args:
        action: its name.
        before: log-odds of the case it was taken for, before.
        after: the same afterwards.
        outcome: what the step did.
    """
    return LastStep(
        action=action,
        probability_before=_probability(before),
        probability_after=_probability(after),
        g_co2e=float(outcome.g_co2e[0]),
        invalid=bool(outcome.invalid[0]),
    )


def _probability(logit: float) -> float:
    return float(1.0 / (1.0 + np.exp(-logit)))


def scene_of(
    engine: ReviewEngine, observation: Float32[np.ndarray, " fields"], last: LastStep | None
) -> Scene:
    """The first session of an engine as it stands."""
    setup, state = engine.setup, engine.state
    over, first = bool(state.over[0]), np.zeros(1, dtype=np.int64)
    length_h = float(state.session_h[0])
    now_h = float(flow_of(setup).now_h(state, first, setup)[0])
    shown = ("session_auc_base", "session_auc_final", "total_g_co2e", "budget_g", "n_late")
    totals = {key: float(value[0]) for key, value in engine.totals(first).items() if key in shown}
    return Scene(
        title=title_of(setup, setup.grid.names[int(state.trace_idx[0])]),
        layout=setup.layout,
        observation=observation,
        mask=engine.mask[0],
        actions=setup.catalogue.names,
        hour=length_h if over else now_h,
        length_h=length_h,
        last=last,
        totals=totals if over else {},
    )


def sparkline(values: tuple[float, ...]) -> str:
    """The values as blocks between their lowest and their highest."""
    low, high = min(values), max(values)
    if high <= low:
        return BLOCKS[3] * len(values)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / (high - low) * top)] for value in values)


def bar(share: float) -> str:
    """A share of 0 to 1 as a bar of text."""
    full = round(min(max(share, 0.0), 1.0) * BAR_CELLS)
    return "[" + "#" * full + "." * (BAR_CELLS - full) + "]"


def text_of(scene: Scene) -> str:
    """The moment as text, one topic a line, one line an action."""
    lines = [scene.title, *_session_lines(scene), *_case_lines(scene), *_action_lines(scene)]
    if scene.last is not None:
        lines.append(f"last    {scene.last.words}")
    if scene.totals:
        lines.append(scene.ending)
    return "\n".join(lines)


def _session_lines(scene: Scene) -> list[str]:
    seen = scene.seen
    leads = ", ".join(f"+{h} h {v:.0f}" for h, v in zip(LEADS_H, scene.forecast[1:]))
    return [
        f"hour    {scene.hour:.4g} of {scene.length_h:g}; {seen['slots_left_now']:.0f} slots left "
        f"in this hour, {seen['slots_left']:.0f} until this case is due; waiting "
        f"{seen['waiting']:.0f}, to come {seen['to_come']:.0f}",
        f"budget  {bar(seen['budget_left'])} {seen['budget_left']:.0%} left "
        f"({seen['budget_left_g_co2e']:,.0f} gCO2e)",
        f"grid    {sparkline(scene.forecast)} {seen['intensity_now']:.0f} gCO2e/kWh now; forecast "
        f"{leads} (sd at 24 h {seen['intensity_uncertainty']:.0%})",
    ]


def _case_lines(scene: Scene) -> list[str]:
    seen = scene.seen
    put_off = ", put off before" if seen["deferred"] > 0.5 else ""
    return [
        f"case    {bar(seen['probability'])} p {seen['probability']:.3f}, entropy "
        f"{seen['entropy']:.2f} bit, disagreement {seen['disagreement']:.2f} log-odds; urgency "
        f"{seen['urgency']:.2f} (simulated), due in {seen['slack_h']:.1f} h{put_off}",
        "has     " + ", ".join(f"{m} {modality_state(scene, m)}" for m in scene.layout.modalities),
    ]


def modality_state(scene: Scene, modality: str) -> str:
    """``absent``, or the share of its cells that are filled in, and whether it is processed."""
    seen = scene.seen
    if seen[f"present_{modality}"] < 0.5:
        return "absent"
    filled = f"{seen[f'quality_{modality}']:.0%} filled"
    return filled + (" (processed)" if seen[f"processed_{modality}"] > 0.5 else "")


def state_of(scene: Scene, action: str) -> str:
    """``open``, or what the observation says about why an action is masked."""
    seen = scene.seen
    if scene.mask[scene.actions.index(action)]:
        return "open"
    if "->" not in action:
        return "closed"
    if seen[f"run_{action}"] > 0.5:
        return "done"
    if seen[f"present_{action.split('->', maxsplit=1)[0]}"] < 0.5:
        return "absent"
    if seen["slots_left_now"] < 0.5:
        return "no slot"
    return "budget" if seen[f"g_co2e_{action}"] > seen["budget_left_g_co2e"] else "closed"


def has_numbers(scene: Scene, action: str) -> bool:
    """Whether an action is a transfer that the case could have."""
    return "->" in action and state_of(scene, action) not in ("done", "absent")


def _action_lines(scene: Scene) -> list[str]:
    width = max(len(name) for name in scene.actions)
    lines = []
    for name in scene.actions:
        line = f"  {state_of(scene, name):<7} {name:<{width}}"
        if has_numbers(scene, name):
            line += action_numbers(scene, name)
        lines.append(line.rstrip())
    return ["actions", *lines]


def action_numbers(scene: Scene, transfer: str) -> str:
    """Predicted gain, energy and emissions of a transfer, and its share in a run."""
    seen = scene.seen
    text = (
        f"  gain {seen[f'gain_{transfer}'] * 100:+.3f} AUC points"
        f"  {seen[f'energy_{transfer}']:.3g} kWh  {seen[f'g_co2e_{transfer}']:,.1f} gCO2e"
    )
    setup, sharing = seen[f"setup_{transfer}"], seen[f"sharing_{transfer}"]
    if setup > 0.0:
        text += f"  of it {setup:.3g} kWh to start a run, shared with {sharing:.0f} more waiting"
    return text
