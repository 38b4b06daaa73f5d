# SPDX-License-Identifier: Apache-2.0
"""Weights as a file of their own: safetensors, the same bytes for the same weights."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_model
from torch import nn

from d3fast.detox.config import D3Config
from d3fast.io.files import atomic_write


def save_weights(model: nn.Module, path: str | Path, config: D3Config | None = None) -> None:
    """Write a model's weights as safetensors, whole or not at all.

    The same weights and configuration give the same bytes. Tensors that share memory (a tied
    head) are written once. Load the file with
    ``safetensors.torch.load_model(model, path)``.

    Args:
        model: the model.
        path: the file to write.
        config: how it was repaired, for the file's header.

    Raises:
        ValueError: the folder does not exist.
    """
    metadata = {"format": "pt"}
    if config is not None:
        metadata["d3fast.config"] = json.dumps(asdict(config))
    with atomic_write(path) as temporary:
        save_model(model, str(temporary), metadata=metadata)
        _order_header(temporary)


def _order_header(path: Path) -> None:
    """Put a file's metadata in order, in place: safetensors writes it in a random one."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        first = {"__metadata__": header.pop("__metadata__"), **header}
        text = json.dumps(first, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))
