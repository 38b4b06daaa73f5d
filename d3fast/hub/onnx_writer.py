# SPDX-License-Identifier: Apache-2.0
"""Writer of repaired ONNX files: a copy of the file in which weights that changed are replaced."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from d3fast.detox import D3Config
from d3fast.hub.programs.onnx_program import Source
from d3fast.io.files import written_together
from d3fast.io.untrusted import open_regular

REPAIRED = "repaired"


@dataclass(frozen=True)
class OnnxWriter:
    """Save a program in the ONNX file it came in, and the files beside it that hold its tensors.

    Attributes:
        path: of the suspect.
        sources: where its weights are stored, by qualified name.
    """

    path: Path
    sources: Mapping[str, Source]

    def __call__(self, model: nn.Module, folder: Path, config: D3Config | None = None) -> Path:
        """Write ``folder/repaired.onnx``, or of several files the folder ``repaired``.

        The files of the folder keep their names, which the ONNX file holds. See ``Writer``.
        """
        state = model.state_dict()
        paths = dict.fromkeys((self.path, *(each.stored.path for each in self.sources.values())))
        single = len(paths) == 1
        name = f"{REPAIRED}{self.path.suffix}" if single else REPAIRED
        with written_together(folder) as place:
            for path in paths:
                copy = place / name if single else place / name / self._inside(path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with open_regular(path) as given, copy.open("wb") as taken:
                    shutil.copyfileobj(given, taken)
                with copy.open("r+b") as file:
                    for weight, source in self.sources.items():
                        if source.stored.path == path:
                            _write(file, source, state[weight].cpu())
        return folder / name

    def _inside(self, path: Path) -> Path:
        return path.relative_to(self.path.parent)


def _write(file: BinaryIO, source: Source, value: Tensor) -> None:
    """Replace a tensor in a file if its value changed."""
    stored = source.stored.read()
    if torch.equal(source.weight(stored), value):
        return
    found = value.T.contiguous() if source.transposed else value.contiguous()
    file.seek(source.stored.begin)
    file.write(found.to(stored.dtype).view(torch.uint8).numpy().tobytes())
