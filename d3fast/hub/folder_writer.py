# SPDX-License-Identifier: Apache-2.0
"""Saving a repaired model as the hub folder that it came in.

Each weight file is a copy of the suspect's in which the tensors that changed are overwritten, in
the file's own dtype: names, order, shards and metadata stay, and so does every byte of a tensor
that did not change. Files of pickles become safetensors. Images and texts share this writer.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.detox import D3Config
from d3fast.io.entries import TensorEntry
from d3fast.io.hub_files import WeightFiles, folder_file, open_weight_files
from d3fast.io.safetensors_file import read_header
from d3fast.io.untrusted import open_regular, printable, read_limited

REPAIRED = "repaired"
# Files beside the weights that are copied as they are: no code, no pickles.
COPIED = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "README.md",
    "LICENSE",
    "LICENSE.txt",
    "NOTICE",
)
_MAX_COPIED = 2**26  # bytes of one file: the largest vocabularies have half of that


@dataclass(frozen=True)
class FolderWriter:
    """Save a model as ``folder/repaired`` in the layout of the suspect's folder.

    Attributes:
        weights: the suspect's weight files.
        names: the model's name of each tensor by the files' name; other tensors are copied.
    """

    weights: WeightFiles
    names: Mapping[str, str]

    @torch.no_grad()
    def __call__(self, model: nn.Module, folder: Path, config: D3Config | None = None) -> Path:
        """Write ``folder/repaired``, which replaces an older one; see ``Writer``.

        Raises:
            ValueError: a weight that the file's dtype cannot hold; a suspect that has changed.
            OSError: a file that cannot be read or written.
        """
        state = model.state_dict()
        source = self.weights.folder
        with _atomic_folder(folder / REPAIRED) as target, open_weight_files(self.weights) as stored:
            for name in COPIED:
                path = folder_file(source, name)
                if path is not None:
                    (target / name).write_bytes(read_limited(path, _MAX_COPIED))
            for file in self.weights.files:
                held = self._held(file, stored)
                values = {n: state[self.names[n]] for n in held if n in self.names}
                if self.weights.pickled:
                    _convert(held, values, target / _safe_name(file.name), config)
                else:
                    _overwrite(file, held, values, target / file.name, config)
            self._write_index(target)
        return folder / REPAIRED

    def _held(self, file: Path, stored: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
        """Return the tensors of one file."""
        places = self.weights.places
        return {n: e for n, e in stored.items() if places is None or places[n] == file.name}

    def _write_index(self, target: Path) -> None:
        index = self.weights.index
        if index is None:
            return
        content = index.read_bytes()
        if self.weights.pickled:
            held = json.loads(content)
            held["weight_map"] = {n: _safe_name(f) for n, f in held["weight_map"].items()}
            content = json.dumps(held, indent=2).encode() + b"\n"
            (target / _safe_name(index.name)).write_bytes(content)
        else:
            (target / index.name).write_bytes(content)


def _safe_name(name: str) -> str:
    """Return the name that a file of pickled weights has as safetensors.

    Example:
        >>> _safe_name("pytorch_model-00001-of-00002.bin")
        'model-00001-of-00002.safetensors'
    """
    return name.replace("pytorch_model", "model", 1).replace(".bin", ".safetensors", 1)


def _changed(name: str, stored: TensorEntry, value: Tensor) -> Tensor | None:
    """Return a weight in its file's dtype; ``None`` if it equals what the file holds."""
    old = stored.read()
    value = value.detach().cpu()
    if torch.equal(old.to(value.dtype), value):
        return None
    new = value.to(old.dtype).contiguous()
    if not bool(new.float().isfinite().all()):
        raise ValueError(f"{name!r} holds values that {old.dtype} of the suspect's file cannot")
    return new


def _options(config: D3Config | None) -> dict[str, str]:
    return {} if config is None else {"d3fast.config": json.dumps(config.record())}


def _overwrite(
    source: Path,
    held: Mapping[str, TensorEntry],
    values: Mapping[str, Tensor],
    target: Path,
    config: D3Config | None,
) -> None:
    """Copy a safetensors file and overwrite the tensors that changed."""
    with open_regular(source) as file, target.open("wb") as copy:
        header: dict[str, Any] = read_header(file)
        raw = _raw_header(source, header, _options(config))
        copy.write(len(raw).to_bytes(8, "little") + raw)
        shutil.copyfileobj(file, copy, 2**20)
        for name, value in values.items():
            new = _changed(name, held[name], value)
            if new is not None:
                copy.seek(8 + len(raw) + header[name]["data_offsets"][0])
                copy.write(new.reshape(-1).view(torch.uint8).numpy().data)


def _raw_header(source: Path, header: Mapping[str, Any], options: Mapping[str, str]) -> bytes:
    """Return the header of a file as bytes, with the options of the repair in its metadata."""
    if not options:
        with open_regular(source) as file:
            return file.read(int.from_bytes(file.read(8), "little"))
    metadata = header.get("__metadata__") or {"format": "pt"}
    rest = {name: value for name, value in header.items() if name != "__metadata__"}
    text = json.dumps(
        {"__metadata__": {**metadata, **options}, **rest},
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    return text.ljust(-(-len(text) // 8) * 8)  # the data begin at a multiple of 8


def _convert(
    held: Mapping[str, TensorEntry],
    values: Mapping[str, Tensor],
    target: Path,
    config: D3Config | None,
) -> None:
    """Write the tensors of a pickled file as safetensors."""
    from safetensors.torch import save_file

    tensors = {}
    for name, entry in held.items():
        new = _changed(name, entry, values[name]) if name in values else None
        tensors[name] = entry.read().clone() if new is None else new
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, target, {"format": "pt", **_options(config)})


@contextmanager
def _atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder inside a ``with`` block; it takes the place of ``path`` at the end.

    If the block raises, ``path`` is unchanged and the temporary folder is removed.

    Raises:
        ValueError: ``path`` is not a folder, or its parent does not exist.
    """
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {printable(path)}: there is no folder {path.parent}")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ValueError(f"cannot write {printable(path)}: a file is in the way")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
        new, old = Path(place, "new"), Path(place, "old")
        new.mkdir()
        yield new
        if path.exists():
            path.rename(old)
        try:
            new.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
