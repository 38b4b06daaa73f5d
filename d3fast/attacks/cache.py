# SPDX-License-Identifier: Apache-2.0
"""Cache of learned triggers in files.

    folder/<name>-<hash>.safetensors       hash: of the options, the seed and the training data

``save_attack`` writes the files. A file is used only if its name and options are those of the
attack and its tensors load; otherwise the trigger is learned again and the file replaced.
"""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from d3fast.attacks.base import Attack, Learned
from d3fast.attacks.files import FORMAT, option_values, read_attack, save_attack
from d3fast.data.base import ImageData
from d3fast.io.files import make_folder
from d3fast.runtime.plugins import origin


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
    """Load an attack's trigger from its file, or learn it and write the file.

    Attacks that learn nothing or have already learned are unchanged.

    Args:
        attack: receives the trigger.
        name: the attack's name in the registry.
        data: the clean training images to learn on.
        folder: folder of the files, created if missing; ``None`` learns without a file.
        seed: seed of the learning.
        device: where to learn; the device of the data if ``None``.
        progress: show progress bars while learning.

    Raises:
        ValueError: the attack cannot learn from the data; ``folder`` is a file.
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
    file = f"{name.replace(':', '.')}-{_fingerprint(attack, data, seed)}.safetensors"
    path = make_folder(folder) / file
    if not _read(attack, name, path):
        attack.learn(data, seed=seed, device=device, progress=progress)
        save_attack(attack, path, name)


def _read(attack: Attack, name: str, path: Path) -> bool:
    """Load the trigger from a file; return False if it is missing, damaged or another attack's."""
    try:
        saved_name, options, tensors = read_attack(path)
        if saved_name != name or options != _as_json(option_values(attack)) or not tensors:
            return False
        attack.load_state_dict(tensors)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _as_json(options: dict[str, object]) -> object:
    return json.loads(json.dumps(options))


def _fingerprint(attack: Attack, data: ImageData, seed: int) -> str:
    """Return 16 hexadecimal digits of a hash over everything that learning depends on."""
    inputs = {
        "format": FORMAT,
        "options": option_values(attack),
        "seed": seed,
        "classes": len(data.classes),
        "images": _checksum(data.images),
        "labels": _checksum(data.labels),
    }
    module = type(attack).__module__
    if not module.startswith("d3fast."):
        inputs["origin"] = origin(f"{module}:{type(attack).__name__}")
    text = json.dumps(inputs, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _checksum(values: Tensor) -> str:
    content = hashlib.sha256(values.detach().cpu().contiguous().numpy().data)
    return f"{tuple(values.shape)} {values.dtype} {content.hexdigest()}"
