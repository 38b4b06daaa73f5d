# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a repair: an interrupted one resumes and ends with the same bits.

After every epoch the state of the repair is written to one file by an atomic write: weights,
optimizer, schedules, lambda, the average, the random generators, the history. The file holds only
tensors, numbers and texts, and is read without unpickling.
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
    """An object whose state can be saved and restored: module, optimizer, schedule."""

    def state_dict(self) -> Any:
        """Return the state as tensors, numbers and texts."""

    def load_state_dict(self, state: Any) -> Any:
        """Restore the state."""


@dataclass(frozen=True)
class Checkpointing:
    """Where and how often a repair saves its state, and whether it resumes.

    Attributes:
        path: the file.
        resume: resume from the file; otherwise it is overwritten.
        generators: the loader's own generators, whose state is saved. Torch's global generators
            are always saved.
        seconds: least time between two writes; 0 writes after every epoch.
        identity: text that must be the same when the repair resumes, such as a hash of the samples.

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
    """Progress of a repair.

    Attributes:
        history: one record per finished epoch.
        clean_weights: lambda after each epoch of the push phase.
        seconds: time spent on the finished epochs.
    """

    history: tuple[Epoch, ...] = ()
    clean_weights: list[float] = field(default_factory=list)
    seconds: float = 0.0


def _fingerprint(model: nn.Module, config: D3Config, identity: str) -> str:
    """Return a hash of the suspect's weights, the configuration and the identity."""
    digest = hashlib.sha256(json.dumps([asdict(config), identity], sort_keys=True).encode())
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Journal:
    """Writer and reader of a repair's state.

    Args:
        checkpointing: the file and its options; ``None`` writes nothing.
        model: the suspect.
        config: the options of the repair.
        device: the device whose global generator is saved beside the CPU's.

    Raises:
        ValueError: a state to resume that is missing, damaged or of another repair.
    """

    def __init__(
        self,
        checkpointing: Checkpointing | None,
        model: nn.Module,
        config: D3Config,
        device: torch.device,
    ) -> None:
        self.at, self.device = checkpointing, device
        self.run = (
            "" if checkpointing is None else _fingerprint(model, config, checkpointing.identity)
        )
        self.started = self.written = time.perf_counter()
        self.found: Mapping[str, Any] | None = None
        if checkpointing is not None and checkpointing.resume:
            self.found = read_state(Path(checkpointing.path), self.run)

    def restore(self, phase: str, parts: Mapping[str, HasState], progress: Progress) -> None:
        """Restore the state that was saved in this phase, if there is one.

        Raises:
            ValueError: a state that does not fit.
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
        """Write the state, unless the last write was less than ``seconds`` ago."""
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
    """Read the file of a ``Journal``.

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


def is_state_of(path: Path, model: nn.Module, config: D3Config, identity: str) -> bool:
    """Return whether a file holds the state of this repair.

    Args:
        path: the file.
        model: the suspect.
        config: the options of the repair.
        identity: see ``Checkpointing``.

    Raises:
        ValueError: a missing or damaged file, or one of another version.
        OSError: a file that cannot be opened.
    """
    return bool(read_state(path)["run"] == _fingerprint(model, config, identity))


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
    """Load the weights of an interrupted repair into a model.

    They are the average of its last epochs where averaging had begun, else those of its last
    finished epoch.

    Args:
        path: the file.
        model: a model of the repaired architecture.

    Returns:
        The number of finished epochs.

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
