# SPDX-License-Identifier: Apache-2.0
"""Log every epoch of a repair to files or to an experiment tracker.

``epoch_log`` opens trackers by name and yields an ``on_epoch`` for ``detoxify`` and the defences.
A tracker is one module of this package with the name of its library and a function ``open_sink``,
which imports it. JSON lines are always written beside the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from d3fast.io.files import make_folder
from d3fast.runtime.checks import check_choice
from d3fast.training.loop import Epoch

TRACKERS = ("jsonl", "tensorboard", "wandb", "mlflow", "trackio")


class Sink(Protocol):
    """One open run of a tracker."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of one epoch."""

    def close(self) -> None:
        """End the run."""


@dataclass(eq=False)
class EpochLog:
    """An ``on_epoch`` that writes every record to some trackers.

    Steps are the numbers of the epochs; where they begin again, as for the second defence of a
    pipeline, counting goes on.

    Attributes:
        sinks: the open runs.
        last: step of the last record.
    """

    sinks: Sequence[Sink]
    last: int = 0

    def __call__(self, epoch: Epoch, model: nn.Module) -> None:
        """Write a record."""
        self.last = max(self.last + 1, epoch.epoch)
        record = epoch.as_dict()
        values = {k: float(v) for k, v in record.items() if v is not None and k != "epoch"}
        for sink in self.sinks:
            sink.log(self.last, values)


def parse_trackers(text: str | None) -> tuple[str, ...]:
    """Return the trackers of a command line, comma-separated.

    Raises:
        ValueError: an unknown one, or one whose library is missing.
    """
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    for name in names:
        check_choice("log", name, TRACKERS)
        _module(name)
    return names


def _module(name: str) -> Any:
    module = import_module(f"d3fast.integrations.log_{name}")
    if module.LIBRARY is not None and find_spec(module.LIBRARY) is None:
        raise ValueError(f"log {name} needs {module.LIBRARY}: pip install {module.LIBRARY}")
    return module


@contextmanager
def epoch_log(
    trackers: Sequence[str],
    folder: str | Path,
    run: str,
    settings: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
) -> Iterator[EpochLog | None]:
    """Open trackers, and close them at the end of a ``with`` block.

    Args:
        trackers: names of ``TRACKERS``; without any, nothing is opened.
        folder: holds what they write, each in a folder of its own; it is made.
        run: name of the run.
        settings: of the run, plain values.
        resume: go on in the file of JSON lines.

    Yields:
        An ``on_epoch``, or ``None`` without trackers.

    Raises:
        ValueError: an unknown tracker, or one whose library is missing.
    """
    if not trackers:
        yield None
        return
    modules = [_module(name) for name in dict.fromkeys(("jsonl", *trackers))]
    where, sinks = make_folder(folder), list[Sink]()
    with ExitStack() as stack:
        for module in modules:
            sink = module.open_sink(where, run, dict(settings or {}), resume)
            stack.callback(sink.close)
            sinks.append(sink)
        yield EpochLog(sinks)
