"""A progress bar over the steps of long work, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stage_bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar fed by (steps finished, steps in all, what is being done); silent without a terminal.

    Args:
        label: what the bar is called.
    """
    from tqdm import tqdm

    with tqdm(desc=label, unit="step", disable=None, leave=False) as bar:

        def show(finished: int, total: int, stage: str) -> None:
            bar.total = total
            bar.set_postfix_str(stage, refresh=False)
            bar.update(finished - bar.n)

        yield show
