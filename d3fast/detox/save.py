# SPDX-License-Identifier: Apache-2.0
"""Repaired weights as a safetensors file: the same weights give the same bytes."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import save_model
from torch import nn

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
    metadata = {"format": "pt"}
    if config is not None:
        metadata["d3fast.config"] = json.dumps(asdict(config))
    with atomic_write(path) as temporary:
        save_model(model, str(temporary), metadata=metadata)
        _order_header(temporary)


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
