# SPDX-License-Identifier: Apache-2.0
"""Repaired weights as a safetensors file: the same weights give the same bytes."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from d3fast.detox.config import D3Config
from d3fast.io.files import atomic_write


def save_weights(model: nn.Module, path: str | Path, config: D3Config | None = None) -> None:
    """Write a model's weights as safetensors, by an atomic write.

    The same weights and configuration give the same bytes. Tensors that share memory (a tied
    head) are written once. Load the file with
    ``safetensors.torch.load_model(model, path)``.

    Args:
        model: the model.
        path: the file to write.
        config: the options of the repair, for the file's header.

    Raises:
        ValueError: the folder does not exist.
    """
    from safetensors.torch import save_model  # a repair itself needs torch and numpy only

    with atomic_write(path) as temporary:
        save_model(model, str(temporary), metadata=_metadata(config))
        _order_header(temporary)


def save_tensors(
    tensors: Mapping[str, Tensor], path: str | Path, config: D3Config | None = None
) -> None:
    """Write tensors as safetensors, by an atomic write; see ``save_weights``.

    Tensors that share memory are written once each.

    Raises:
        ValueError: the folder does not exist.
    """
    from safetensors.torch import save_file

    apart = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_write(path) as temporary:
        save_file(apart, str(temporary), metadata=_metadata(config))
        _order_header(temporary)


def _metadata(config: D3Config | None) -> dict[str, str]:
    options = {} if config is None else {"d3fast.config": json.dumps(config.record())}
    return {"format": "pt", **options}


def _order_header(path: Path) -> None:
    """Sort a file's metadata in place: safetensors writes it in a random order."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        first = {"__metadata__": header.pop("__metadata__"), **header}
        text = json.dumps(first, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))
