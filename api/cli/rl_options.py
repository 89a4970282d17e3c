"""Options that ``rl train``, ``rl tune`` and ``rl sweep`` share, and what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agent.algorithms import TrainPpoConfig
    from agent.sessions import SessionSource

BundleFolder = Annotated[Path, typer.Option(help="Bundle that 'greenboard train' wrote.")]
EnvId = Annotated[
    str,
    typer.Option(
        help="Id of the environment: greenboard/CaseReviewOneShot-v1, "
        "greenboard/CaseReviewSequential-v1 or greenboard/CaseReview-v1."
    ),
]
SessionPreset = Annotated[
    str | None,
    typer.Option(help="Settings of the sessions: default, hard, batched or swing."),
]
Algorithm = Annotated[
    str,
    typer.Option(help="How to train: ppo, maskable-ppo, ppo-lagrangian or cloned-ppo."),
]
Settings = Annotated[
    Path | None,
    typer.Option(help="TOML with training settings, such as 'rl tune' prints, on top."),
]
Traces = Annotated[
    list[Path] | None,
    typer.Option(help="Recorded grid trace; give it again for several. Else a synthetic grid."),
]
EvalEvery = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Chunks of training between looks at validation patients; 0: train on all. "
        "[default: the algorithm's]",
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(min=1, help="Looks without a new best after which training ends."),
]


def chosen_settings(
    algorithm: str, settings: Path | None, *, warm_start: str = "none", **overrides: Any
) -> TrainPpoConfig:
    """A training preset, with a file's settings and then the options given on top.

    Raises:
        RlTrainingError: if the preset or a setting is unknown, or the file cannot be read.
    """
    from agent.algorithms import (
        read_settings,
        training_preset,
        warm_start_named,
        with_teacher,
    )

    warm_start_named(warm_start)
    given = {name: value for name, value in overrides.items() if value is not None}
    stored = settings_in(settings)
    if "algorithm" in stored and settings is not None:
        chosen = read_settings(settings.read_text("utf-8"), str(settings), **given)
    else:
        chosen = training_preset(algorithm, **{**stored, **given})
    return with_teacher(chosen, warm_start)


def settings_in(path: Path | None) -> dict[str, Any]:
    """The fields that a file of training settings has; none without a file.

    Raises:
        RlTrainingError: if it cannot be read or is no TOML.
    """
    import tomllib

    from agent.errors import RlTrainingError

    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RlTrainingError(f"{path} cannot be read as TOML: {error}") from error


def open_source(
    bundle: Path,
    *,
    env: str,
    preset: str | None,
    traces: Sequence[Path] | None,
    folds: Sequence[int] | None,
    cases: int | None,
) -> tuple[SessionSource, tuple[int, ...]]:
    """The sessions that the options stand for, and the folds to hold out; default: the last.

    Raises:
        ComparisonError: if the environment or a fold is unknown, or a fold cannot fill a session.
    """
    from agent.sessions import SessionSource
    from api.cli.figures import note_smaller

    opened = SessionSource.open(
        bundle, trace=list(traces) if traces else None, env_id=env, preset=preset
    )
    held_out = tuple(folds) if folds else opened.folds[-1:]
    source = opened.fitted(held_out, cases)
    note_smaller(source, opened, cases)
    return source, held_out
