# SPDX-License-Identifier: Apache-2.0
"""Saved attacks: options and learned tensors in one safetensors file.

    metadata    format, attack (name in the registry), options (JSON)
    tensors     ``state_dict()``

Reading such a file executes nothing. ``load_attack`` in ``d3fast.attacks.registry`` builds the
attack from what ``read_attack`` returns.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from d3fast.attacks.base import Attack
from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.files import atomic_write
from d3fast.io.safetensors_file import open_safetensors
from d3fast.io.untrusted import error_text, printable

FORMAT = "d3fast.attack/1"
_MAX_FILE_BYTES = 2**28
# Upper bounds of options read from a file: width and grid determine how much is allocated.
_MAX_OPTION = {"width": 256, "grid": 4096}
_MAX_NUMBER = 2**63
_MAX_TENSOR_SIDE = 4096
Networks = TypeVar("Networks", bound=nn.Module)
_DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


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
    from safetensors.torch import save_file  # the built-in attacks need torch and numpy only

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
        ValueError: the file is not a saved attack.
        OSError: the file cannot be opened.
    """
    path = Path(path)
    name = printable(path.name)
    if path.is_file() and path.stat().st_size > _MAX_FILE_BYTES:
        raise ValueError(f"{name} is longer than {_MAX_FILE_BYTES} bytes, not a saved attack")
    with ExitStack() as stack:
        try:
            metadata, entries = stack.enter_context(open_safetensors(path))
        except ValueError as error:
            raise ValueError(f"{name} is not a safetensors file: {error_text(error)}") from None
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{name} is not a saved attack (format {FORMAT})")
        try:
            options, attack = json.loads(metadata["options"]), metadata["attack"]
            _check_options(options)
            tensors = {key: _read_tensor(key, entry) for key, entry in entries.items()}
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


def _read_tensor(name: str, entry: TensorEntry | OtherEntry) -> Tensor:
    """Read a tensor; raise ``ValueError`` if its dtype, size or values cannot be a trigger's."""
    shown = f"'{printable(name, 80)}'"
    if isinstance(entry, OtherEntry):
        raise ValueError(f"{shown} is {entry.kind}")
    if entry.dtype not in _DTYPES:
        raise ValueError(f"{shown} has dtype {entry.dtype}, which no trigger has")
    if 0 in entry.shape or max(entry.shape, default=1) > _MAX_TENSOR_SIDE:
        shape = printable(entry.shape, 80)
        raise ValueError(f"{shown} has shape {shape}, which no trigger has")
    value = entry.read()
    if not bool(value.isfinite().all()):
        raise ValueError(f"{shown} holds NaN or inf")
    return value


def networks_from(
    make: Callable[[int], Networks], bias: str, state: Mapping[str, Tensor]
) -> Networks:
    """Return frozen networks with the learned tensors of an attack.

    Args:
        make: builds the networks for images of a number of channels.
        bias: name of the bias that has as many elements as the images have channels.
        state: the tensors, which may come from a stranger's file.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape or dtype, or not finite.
    """
    channels = state[bias].shape[0] if bias in state and state[bias].ndim == 1 else 1
    networks = make(channels)
    ours = networks.state_dict()
    for name in sorted({*ours, *state}):
        needed, found = (_described(tensors.get(name)) for tensors in (ours, state))
        if needed != found:
            raise ValueError(f"{printable(name, 80)} must be {needed}, got {found}")
        if not bool(state[name].isfinite().all()):
            raise ValueError(f"{name} holds NaN or inf")
    networks.load_state_dict(dict(state))
    return networks.requires_grad_(False)


def _described(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tuple(tensor.shape)} of {tensor.dtype}"
