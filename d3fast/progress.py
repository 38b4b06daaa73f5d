# SPDX-License-Identifier: Apache-2.0
"""The one progress bar: rich, on standard error, gone when the work is done.

Where standard error is no terminal nothing is printed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    description: str, total: int, enabled: bool = True
) -> Iterator[Callable[[str], None]]:
    """Show a bar inside a ``with`` block.

    Args:
        description: what is being done.
        total: number of steps.
        enabled: ``False`` shows nothing.

    Yields:
        A function that moves the bar by one step and, given a text, renames it.
    """
    # Imported where it is shown: the optimizer alone needs no terminal.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(
        *columns, console=console, transient=True, disable=not (enabled and console.is_terminal)
    ) as progress:
        task = progress.add_task(description, total=total)

        def advance(text: str = "") -> None:
            progress.update(task, advance=1, description=text or description)

        yield advance
