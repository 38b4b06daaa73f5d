# SPDX-License-Identifier: Apache-2.0
"""A repair in the folder of an audit: its state while it runs, its files when it is done."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d3fast.audit.repair import Repair, Repaired
from d3fast.detox import Checkpointing, save_weights, weights_so_far
from d3fast.detox.run import OnEpoch
from d3fast.io.files import make_folder, written_together

STATE, PARTIAL = "resume.pt", "partial.safetensors"


def state_file(folder: Path, resume: bool) -> Path:
    """Return the file of an interrupted repair's state.

    Args:
        folder: of the audit.
        resume: continue an interrupted repair.

    Raises:
        ValueError: there is a state and it is not to be continued, or the reverse.
    """
    state = folder / STATE
    if state.exists() and not resume:
        raise ValueError(
            f"{state} belongs to an interrupted repair: continue it with --resume, or remove the "
            "file to start again"
        )
    if resume and not state.exists():
        raise ValueError(f"there is nothing to resume: {state} is missing")
    return state


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder; remove it if it is empty at the end."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    make_folder(folder)
    try:
        yield
    finally:
        for each in made:
            with contextlib.suppress(OSError):
                each.rmdir()


def repair_in_folder(
    repair: Repair,
    folder: Path,
    *,
    resume: bool = False,
    suspect_rows: Sequence[Mapping[str, Any]] = (),
    beside: Callable[[Path], None] = lambda _: None,
    on_epoch: OnEpoch | None = None,
    progress: bool = True,
) -> tuple[Repaired, Path]:
    """Run a repair and write its files together; until then the folder has its state alone.

    Args:
        repair: of ``prepare_repair``.
        folder: of the audit; it is made.
        resume: continue the interrupted repair of the folder.
        suspect_rows: of an earlier inspection of the suspect.
        beside: called with the folder of the new files to write more of them.
        on_epoch: called after every epoch; see ``detoxify``.
        progress: show progress bars.

    Returns:
        The repair and the path of its weights.

    Raises:
        ValueError: a state that does not fit ``resume``; what ``Repair.run`` raises.
        OSError: a file that cannot be written.
    """
    keep = Checkpointing(
        state_file(folder, resume),
        resume,
        repair.generators,
        seconds=1.0,
        identity=repair.identity,
    )
    with _made(folder):
        repaired = repair.run(
            suspect_rows, checkpointing=keep, on_epoch=on_epoch, progress=progress
        )
        with written_together(folder) as place:
            weights, _ = repaired.write(place)
            beside(place)
        for leftover in (STATE, PARTIAL):
            (folder / leftover).unlink(missing_ok=True)
    return repaired, folder / weights.name


def save_partial(repair: Repair, folder: Path) -> str:
    """After Ctrl-C write the weights of the last finished epoch; return a sentence about them."""
    state = folder / STATE
    if not state.exists():
        return "No epoch was finished; nothing was written."
    epochs = weights_so_far(state, repair.audit.model)
    save_weights(repair.audit.model, folder / PARTIAL, repair.options.config)
    return (
        f"{epochs} epochs were finished. {folder / PARTIAL} holds the weights so far; "
        "the same command with --resume continues."
    )
