"""A progress bar over the steps of long work, on standard error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

Lines = Annotated[
    bool,
    typer.Option(
        "--progress-lines",
        help="Progress as JSON lines on standard error, for programs: stage, finished, total.",
    ),
]


@contextmanager
def stage_bar(label: str, *, lines: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """A bar fed by (steps finished, steps in all, what is being done); silent without a terminal.

    Args:
        label: what the bar is called.
        lines: write a JSON line a step instead, which programs can read.
    """
    if lines:
        yield _tell
        return
    from tqdm import tqdm

    with tqdm(desc=label, unit="step", disable=None, leave=False) as bar:

        def show(finished: int, total: int, stage: str) -> None:
            bar.total = total
            bar.set_postfix_str(stage, refresh=False)
            bar.update(finished - bar.n)

        yield show


def _tell(finished: int, total: int, stage: str) -> None:
    step = {"stage": stage, "finished": finished, "total": total}
    typer.echo(json.dumps(step), err=True)
