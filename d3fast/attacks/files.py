# SPDX-License-Identifier: Apache-2.0
"""Saved attacks: options and learned tensors in one safetensors file.

    metadata    format, attack (name in the registry), options (JSON)
    tensors     ``state_dict()``

Reading such a file executes nothing. ``load_attack`` in ``d3fast.attacks.registry`` builds the
attack from what ``read_attack`` returns.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from d3fast.attacks.base import Attack
from d3fast.io.files import atomic_write
from d3fast.io.untrusted import error_text, open_regular, printable

FORMAT = "d3fast.attack/1"
_MAX_FILE_BYTES = 2**28
# Upper bounds of options read from a file: width and grid determine how much is allocated.
_MAX_OPTION = {"width": 256, "grid": 4096}
_MAX_NUMBER = 2**63
_MAX_TENSOR_SIDE = 4096


def option_values(attack: Any) -> dict[str, Any]:
    """Return the options of an attack by name, as its constructor takes them."""
    return {f.name: getattr(attack, f.name) for f in dataclasses.fields(attack) if f.init}


def save_attack(attack: Attack, path: str | Path, name: str) -> None:
    """Write an attack's options and learned tensors to a safetensors file.

    Args:
        attack: a dataclass of the registry.
        path: the file to write.
        name: the attack's name in the registry.

    Raises:
        ValueError: the folder does not exist.
    """
    options = json.dumps(option_values(attack))
    metadata = {"format": FORMAT, "attack": name, "options": options}
    tensors = {key: value.detach().cpu().contiguous() for key, value in attack.state_dict().items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_attack(path: str | Path) -> tuple[str, Mapping[str, Any], dict[str, Tensor]]:
    """Read a file that ``save_attack`` wrote.

    Returns:
        The attack's name, its options and its tensors.

    Raises:
        ValueError: the file is no saved attack.
        OSError: the file cannot be opened.
    """
    name = printable(Path(path).name)
    try:
        with open_regular(path) as start:
            if os.fstat(start.fileno()).st_size > _MAX_FILE_BYTES:
                raise ValueError(f"{name} is longer than {_MAX_FILE_BYTES} bytes, no saved attack")
        with safe_open(Path(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{name} is no saved attack (format {FORMAT})")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{name} is no safetensors file: {error_text(error)}") from None
    try:
        options, attack = json.loads(metadata["options"]), metadata["attack"]
        _check_options(options)
        _check_tensors(tensors)
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{name} is a damaged saved attack: {error_text(error)}") from None
    return attack, options, tensors


def _check_options(options: Any) -> None:
    """Raise ``ValueError`` unless the options are a JSON object of numbers within bounds."""
    if not isinstance(options, dict):
        raise ValueError(f"its options are {printable(repr(options), 40)}")
    for option, value in options.items():
        most = _MAX_OPTION.get(option, _MAX_NUMBER)
        if isinstance(value, int | float) and abs(value) > most:
            shown = printable(option, 40)
            raise ValueError(f"{shown} must be <= {most}, got {printable(repr(value), 40)}")


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` on a tensor that is empty, too large or not finite."""
    for name, value in tensors.items():
        if not value.numel() or max(value.shape, default=1) > _MAX_TENSOR_SIDE:
            shape = printable(tuple(value.shape), 80)
            raise ValueError(f"'{printable(name, 80)}' has shape {shape}, which no trigger has")
        if not bool(value.isfinite().all()):
            raise ValueError(f"'{printable(name, 80)}' holds NaN or inf")
