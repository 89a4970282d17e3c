"""The options by which ``greenboard train`` minds the grid while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.waiting import GridChoice, Timing, WaitOptions
from api.errors import CommandError

if TYPE_CHECKING:
    from agent.carbon_training import CarbonOptions
    from carbon.monitor import CarbonMonitor
    from distill.config import TrainConfig

AWARE_EPOCHS, AWARE_DEADLINE_H = 100, 24.0
"""What ``--carbon-aware`` stands for; distill/README.md says what that saves and costs."""
STOPPED = 3
RECORDED = ("trace", "synthetic")

Anneal = Literal["steps", "carbon"]
CarbonAware = Annotated[
    bool,
    typer.Option(
        "--carbon-aware",
        help=f"Mind the grid: {AWARE_EPOCHS} epochs a student, put off to cleaner hours within "
        f"{AWARE_DEADLINE_H:g} h. The options below change single parts of it.",
    ),
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Epochs a student, instead of the preset's.")
]
CarbonBudget = Annotated[
    float | None,
    typer.Option(
        help="gCO2e that the whole run may emit, gross. Students get as many epochs as that "
        "allows; where it does not reach, the run stops, keeps what is finished, and ends with "
        f"code {STOPPED}."
    ),
]
DeadlineH = Annotated[
    float | None,
    typer.Option(
        help="Hours from now in which training has to be over. Epochs are put off to cleaner hours "
        "before that: really with --wait-for-clean, else in simulated time on a recording. Needs "
        "--duration-h, the hours that the work itself takes."
    ),
]
Temperature = Annotated[
    float,
    typer.Option(help="Of the distillation terms at first; falls to 1. No gain was found."),
]
AnnealOption = Annotated[
    Anneal,
    typer.Option("--anneal", help="What the temperature falls with: steps, or carbon spent."),
]
RateByIntensity = Annotated[
    float,
    typer.Option(
        help="Learning rate times (usual / present intensity) to this power; 0: as scheduled. No "
        "gain was found."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Where students are kept while the run is on. Default with any of these options: "
        "OUT.checkpoint; removed when the bundle is written."
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on from the checkpoint of a run that was stopped or killed. Give the same cohort "
        "and settings; the budget may differ. Teachers are fitted again.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class GridMinding:
    """What was asked for."""

    aware: bool = False
    epochs: int | None = None
    budget_g: float | None = None
    deadline_h: float | None = None
    temperature: float = 1.0
    anneal: Anneal = "steps"
    rate: float = 0.0
    checkpoint: Path | None = None
    resume: bool = False

    def resolved(self) -> GridMinding:
        """With what ``--carbon-aware`` stands for filled in."""
        if not self.aware:
            return self
        return replace(
            self,
            epochs=AWARE_EPOCHS if self.epochs is None else self.epochs,
            deadline_h=AWARE_DEADLINE_H if self.deadline_h is None else self.deadline_h,
        )

    @property
    def asked(self) -> bool:
        """Whether training is to mind the grid at all; a number of epochs alone is not that."""
        return replace(self, epochs=None) != GridMinding()

    def config(self, base: TrainConfig) -> TrainConfig:
        """The settings with the asked number of epochs."""
        return base if self.epochs is None else replace(base, epochs=self.epochs)

    def options(self, out: Path, duration_h: float) -> CarbonOptions | None:
        """For :func:`agent.build.build_bundle`; None if nothing was asked for.

        Raises:
            TrainingError: if a number makes no sense.
            AgentError: if the deadline leaves nothing to put off.
        """
        if not self.asked:
            return None
        from agent.carbon_training import CarbonOptions
        from distill.carbon_book import CarbonSettings

        return CarbonOptions(
            settings=CarbonSettings(
                budget_g_co2e=self.budget_g,
                temperature=self.temperature,
                anneal=self.anneal,
                rate_by_intensity=self.rate,
            ),
            deadline_h=self.deadline_h,
            duration_h=duration_h,
            folder=self.checkpoint or out.with_name(f"{out.name}.checkpoint"),
            resume=self.resume,
        )

    def waiting(self, asked: WaitOptions) -> WaitOptions:
        """What is left to do before training: with a deadline, training itself does the waiting."""
        if self.deadline_h is None:
            return asked
        return replace(asked, wait=False, slack_h=self.deadline_h - asked.duration_h)

    def timing(self, real: Timing, *, wait: bool, chosen: GridChoice) -> Timing:
        """Clock and sleep: simulated where a recording is waited on and nobody asked to wait.

        Raises:
            CommandError: if it is a live grid, on which nothing can be simulated.
        """
        if self.deadline_h is None or wait:
            return real
        name = chosen.grid or ("synthetic" if chosen.trace is None else "trace")
        if name not in RECORDED:
            raise CommandError(
                f"--deadline-h puts epochs off, and on the live grid {name} that takes real "
                "hours. Add --wait-for-clean to wait them, or give a recording with --trace, on "
                "which the time is simulated."
            )
        from agent.carbon_training import SimulatedClock

        clock = SimulatedClock(real.clock)
        return Timing(clock=clock, sleep=clock.sleep)


def fit_forecast(monitor: CarbonMonitor) -> None:
    """Fit the learned forecast, where there is a history to learn from."""
    from api.cli.progress import stage_bar

    with stage_bar("fit the forecast") as show:
        monitor.fit(show)


@contextmanager
def stopping_cleanly(carbon: CarbonOptions | None) -> Iterator[None]:
    """Turn a spent budget into a line that says what is kept, and an exit code of its own.

    Raises:
        Exit: with 3 if the budget did not reach.
    """
    from distill.errors import BudgetSpentError

    try:
        yield
    except BudgetSpentError as error:
        folder = "nowhere" if carbon is None else carbon.folder
        typer.echo(
            f"{error} No bundle was written. What is finished is kept in {folder}: the same "
            "command with --resume and a larger --carbon-budget goes on from there.",
            err=True,
        )
        raise typer.Exit(STOPPED) from None
