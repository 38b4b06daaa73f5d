# SPDX-License-Identifier: Apache-2.0
"""Finding the hub folder that a user named: a path, ``hf://org/name``, or a name in the cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3fast.hub.download import PREFIX, cached, downloaded
from d3fast.io.hub_files import CONFIG, code_files, read_folder_json
from d3fast.io.untrusted import is_displayable, printable


@dataclass(frozen=True)
class HubFolder:
    """A folder with a ``config.json``.

    Attributes:
        path: the folder.
        name: the last part of its name, or of the repository's.
        spec: how a command line names it, without folders of this machine.
        config: content of ``config.json``.
        code: names of files of code beside the weights; none of them is opened.
    """

    path: Path
    name: str
    spec: str
    config: Mapping[str, Any]
    code: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """Name of the model's class according to ``config.json``; empty if it does not tell."""
        named = self.config.get("architectures")
        first = named[0] if isinstance(named, list) and named else self.config.get("architecture")
        return first if isinstance(first, str) else ""


def find_folder(model: str) -> HubFolder | None:
    """Return the hub folder that a model's name stands for; ``None`` for other forms of model.

    Args:
        model: a folder, ``hf://org/name``, ``hf://org/name@revision``, or ``org/name`` if the
            hub's cache on this machine holds it.

    Raises:
        ValueError: a damaged ``config.json``; an adapter; a name that does not print; a repository
            that is neither in the cache nor can be reached.
        OSError: a file that cannot be read.
    """
    path = Path(model)
    if model.startswith(PREFIX):
        path, name, spec = downloaded(model), model.partition("@")[0].rpartition("/")[2], model
    elif path.is_dir():
        name = spec = path.resolve().name
    else:
        snapshot = cached(model)
        if snapshot is None:
            return None
        path, name, spec = snapshot, model.rpartition("/")[2], model
    if not is_displayable(name):
        raise ValueError(f"the folder '{printable(name, 80)}' has a name that does not print")
    config = read_folder_json(path, CONFIG)
    if config is None:
        if (path / "adapter_config.json").exists():
            raise ValueError(
                f"{printable(path)} holds an adapter, not a model: merge it into its model first "
                "(peft: merge_and_unload, then save_pretrained)"
            )
        return None
    return HubFolder(path, name, spec, config, code_files(path))
