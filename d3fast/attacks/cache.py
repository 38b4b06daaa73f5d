# SPDX-License-Identifier: Apache-2.0
"""Learned triggers kept in files: what was learned once with the same inputs is read back.

    folder/<name>-<hash>.safetensors       hash: of the options, the seed and the training data

A file is what ``save_attack`` writes, and is believed only if it says that it holds this attack
with these options and its tensors fit; otherwise the trigger is learned anew and the file
replaced.
"""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from d3fast.attacks.base import FORMAT, Attack, Learned, option_values, read_attack, save_attack
from d3fast.data.base import ImageData
from d3fast.io.files import folder as make_folder


def ensure_learned(
    attack: Attack,
    name: str,
    data: ImageData,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> None:
    """Make an attack's trigger callable: read it from its file, or learn it and write the file.

    Attacks that learn nothing and those that have learned already are left as they are.

    Args:
        attack: takes over what is read or learned.
        name: the attack's name in the registry.
        data: the clean training images that it is learned on.
        folder: where the files are, made if it is not there; ``None`` learns without a file.
        seed: of the learning.
        device: where to learn; where the data is if ``None``.
        progress: show progress bars while learning.

    Raises:
        ValueError: data that the attack cannot learn from; something in the folder's way.
        OSError: the folder cannot be read or written.

    Example:
        >>> from d3fast.attacks.ssba import SSBA
        >>> data = ImageData(torch.rand(8, 1, 4, 4), torch.arange(8) % 2, ("a", "b"))
        >>> attack = SSBA(target=1, steps=1)
        >>> ensure_learned(attack, "ssba", data, progress=False)
        >>> attack.learned
        True
    """
    if not isinstance(attack, Learned) or attack.learned:
        return
    if folder is None:
        attack.learn(data, seed=seed, device=device, progress=progress)
        return
    path = make_folder(folder) / f"{name}-{_fingerprint(attack, data, seed)}.safetensors"
    if not _read(attack, name, path):
        attack.learn(data, seed=seed, device=device, progress=progress)
        save_attack(attack, path, name)


def _read(attack: Attack, name: str, path: Path) -> bool:
    """Whether the file was there and the attack has taken over what it holds."""
    try:
        theirs, options, tensors = read_attack(path)
        if theirs != name or options != _as_json(option_values(attack)) or not tensors:
            return False
        attack.load_state_dict(tensors)
    except (FileNotFoundError, ValueError):  # not there, or damaged
        return False
    return True


def _as_json(options: dict[str, object]) -> object:
    return json.loads(json.dumps(options))


def _fingerprint(attack: Attack, data: ImageData, seed: int) -> str:
    """16 hexadecimal digits that differ where anything differs that learning depends on."""
    learned_from = {
        "format": FORMAT,
        "options": option_values(attack),
        "seed": seed,
        "classes": len(data.classes),
        "images": _checksum(data.images),
        "labels": _checksum(data.labels),
    }
    text = json.dumps(learned_from, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _checksum(values: Tensor) -> str:
    content = hashlib.sha256(values.detach().cpu().contiguous().numpy().data)
    return f"{tuple(values.shape)} {values.dtype} {content.hexdigest()}"
