# SPDX-License-Identifier: Apache-2.0
"""A repair that was cut off goes on, and comes out with the same bits.

After every epoch all that the repair's course depends on is written to one file, whole or not at
all: weights, optimizer, schedules, lambda, the average, the random generators, the history. The
file holds tensors, numbers and texts alone, and is read without unpickling.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from d3fast.detox.config import D3Config
from d3fast.io.entries import read_entries
from d3fast.io.files import atomic_write
from d3fast.io.torch_files import read_torch_file
from d3fast.io.untrusted import error_text, open_regular, printable
from d3fast.runtime.checks import check_number
from d3fast.training.loop import Epoch

_FORMAT, _VERSION = "d3fast.repair", 1
_KEYS = ("run", "phase", "parts", "history", "clean_weights", "random", "generators", "seconds")


class HasState(Protocol):
    """What can be written down and taken back: modules, optimizers, schedules."""

    def state_dict(self) -> Any:
        """Tensors, numbers and texts."""

    def load_state_dict(self, state: Any) -> Any:
        """Take them back."""


@dataclass(frozen=True)
class Checkpointing:
    """Where a repair writes how far it is, and whether it goes on from there.

    Attributes:
        path: the file.
        resume: go on from it; otherwise it is overwritten.
        generators: the loader's own generators, whose state belongs to the run. Torch's global
            ones are always kept.
        seconds: write no oftener than that; 0 after every epoch.
        identity: what else has to be the same, such as a hash of the samples.

    Raises:
        ValueError: negative seconds.
    """

    path: str | Path
    resume: bool = False
    generators: Sequence[torch.Generator] = ()
    seconds: float = 0.0
    identity: str = ""

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds)


@dataclass
class Progress:
    """How far a repair is.

    Attributes:
        history: one record per finished epoch.
        clean_weights: lambda after each of them.
        seconds: spent on them.
    """

    history: tuple[Epoch, ...] = ()
    clean_weights: list[float] = field(default_factory=list)
    seconds: float = 0.0


def _run(model: nn.Module, config: D3Config, identity: str) -> str:
    """A hash of what a repair is made from: the suspect, the configuration, the samples."""
    digest = hashlib.sha256(json.dumps([asdict(config), identity], sort_keys=True).encode())
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Journal:
    """Writes a repair's state, and reads it back.

    Args:
        checkpointing: where; ``None`` writes nothing.
        model: the suspect.
        config: the choices.
        device: whose global generator is kept beside the CPU's.
    """

    def __init__(
        self,
        checkpointing: Checkpointing | None,
        model: nn.Module,
        config: D3Config,
        device: torch.device,
    ) -> None:
        self.at, self.device = checkpointing, device
        self.run = "" if checkpointing is None else _run(model, config, checkpointing.identity)
        self.started = self.written = time.perf_counter()
        self.found: Mapping[str, Any] | None = None
        if checkpointing is not None and checkpointing.resume:
            self.found = read_state(Path(checkpointing.path), self.run)

    def restore(self, phase: str, parts: Mapping[str, HasState], progress: Progress) -> None:
        """Take back what was written in this phase, if anything was.

        Raises:
            ValueError: a file that does not fit.
        """
        found, at = self.found, self.at
        if found is None or at is None or found["phase"] != phase:
            return
        self.found = None
        try:
            for name, part in parts.items():
                part.load_state_dict(found["parts"][name])
            torch.set_rng_state(found["random"]["cpu"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(found["random"]["cuda"], self.device)
            for generator, state in zip(at.generators, found["generators"], strict=True):
                generator.set_state(state)
            progress.history = tuple(Epoch(**record) for record in found["history"])
            progress.clean_weights = [float(value) for value in found["clean_weights"]]
            progress.seconds = float(found["seconds"])
        except (KeyError, TypeError, RuntimeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{at.path} does not fit this repair: {str(error).splitlines()[0]:.120}"
            ) from None

    def write(self, phase: str, parts: Mapping[str, HasState], progress: Progress) -> None:
        """Write everything, unless that was done a moment ago."""
        now, at = time.perf_counter(), self.at
        if at is None or (now - self.written < at.seconds and len(progress.history) > 1):
            return
        self.written = now
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        state = {
            "format": _FORMAT,
            "version": _VERSION,
            "run": self.run,
            "phase": phase,
            "parts": {name: part.state_dict() for name, part in parts.items()},
            "history": [record.as_dict() for record in progress.history],
            "clean_weights": list(progress.clean_weights),
            "random": random,
            "generators": [generator.get_state() for generator in at.generators],
            "seconds": progress.seconds + now - self.started,
        }
        with atomic_write(at.path) as temporary:
            torch.save(state, temporary)


def read_state(path: Path, run: str | None = None) -> Mapping[str, Any]:
    """Read a file that ``Journal`` wrote.

    Format, version and run are compared before any tensor is read.

    Args:
        path: the file.
        run: the hash of the repair that the file must belong to; of any if ``None``.

    Raises:
        ValueError: a missing or damaged file, or one of another version or repair.
        OSError: a file that cannot be opened.
    """
    if not path.exists():
        raise ValueError(f"there is nothing to resume: {printable(path)} is missing")
    with open_regular(path) as file:
        try:
            state = read_torch_file(file)
        except Exception as error:  # parsers raise all kinds of exceptions on bad bytes
            raise ValueError(f"{printable(path)} is damaged: {error_text(error)}") from None
        _check_state(state, path, run)
        try:
            read: Mapping[str, Any] = read_entries(state, os.fstat(file.fileno()).st_size)
        except Exception as error:
            raise ValueError(f"{printable(path)} is damaged: {error_text(error)}") from None
    return read


def _check_state(state: Any, path: Path, run: str | None) -> None:
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"{printable(path)} is no state of a repair")
    if state.get("version") != _VERSION or any(key not in state for key in _KEYS):
        raise ValueError(f"{printable(path)} was written by another version of d3fast")
    if run is not None and state["run"] != run:
        raise ValueError(
            f"{printable(path)} belongs to another repair: other weights, samples or options"
        )


def weights_so_far(path: Path, model: nn.Module) -> int:
    """Fill a model with what a repair that was cut off had come to.

    That is the average of its last epochs if it had begun, else its last whole epoch.

    Args:
        path: the file.
        model: of the repaired kind.

    Returns:
        The number of epochs that were finished.

    Raises:
        ValueError: a file that is missing, damaged or of another model.
    """
    state = read_state(path)
    parts = state["parts"]
    average = parts.get("average") or {}
    start = "module."
    mean = {k.removeprefix(start): v for k, v in average.items() if k.startswith(start)}
    try:
        model.load_state_dict(mean or parts["model"])
    except (KeyError, RuntimeError, TypeError, AttributeError):
        raise ValueError(f"{path} does not fit the model") from None
    return len(state["history"])
