# SPDX-License-Identifier: Apache-2.0
"""The one progress bar: rich, on standard error, removed at the end.

Nothing is printed if standard error is not a terminal, or where rich, of d3fast[cli], is missing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from d3fast.runtime.extras import is_missing

if TYPE_CHECKING:
    from rich.console import RenderableType


def _ignore(text: str = "") -> None:
    """Take a step where there is no bar."""


@contextmanager
def progress_bar(
    description: str,
    total: int,
    enabled: bool = True,
    *,
    done: int = 0,
    above: "Callable[[], RenderableType] | None" = None,
) -> Iterator[Callable[[str], None]]:
    """Show a progress bar with the remaining time inside a ``with`` block.

    Args:
        description: label of the bar.
        total: number of steps.
        enabled: ``False`` shows nothing.
        done: steps of an earlier run, which do not count in the estimate of the remaining time.
        above: returns the text above the bar; called at every refresh.

    Yields:
        A function that advances the bar by one step and, given a text, changes its label.
    """
    if is_missing("rich"):
        yield _ignore
        return
    # Imported here: the optimizer alone needs no terminal.
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    # Steps may take minutes; rich forgets steps after 30 seconds by default.
    bar = Progress(*columns, console=console, speed_estimate_period=24 * 3600)
    task = bar.add_task(description, total=total, completed=done)

    def advance(text: str = "") -> None:
        bar.update(task, advance=1, description=text or description)

    if not (enabled and console.is_terminal):
        yield advance
        return

    def shown() -> Group:
        return Group(*([above()] if above is not None else []), bar)

    with Live(get_renderable=shown, console=console, transient=True, refresh_per_second=4):
        yield advance
