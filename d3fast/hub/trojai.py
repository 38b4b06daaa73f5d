# SPDX-License-Identifier: Apache-2.0
"""Model folders of the TrojAI image classification rounds (NIST).

    id-00000000/model.pt                       a whole model of torchvision or timm
    id-00000000/ground_truth.csv               1: poisoned, 0: clean
    id-00000000/clean-example-data/            images with labels, see ``d3fast.data.folders``

``model.pt`` is a pickle of a whole model; only its weights are read, as
``d3fast.io.whole_models`` says, and the architecture is inferred from their names and shapes.
"""

from dataclasses import replace
from pathlib import Path

from d3fast.hub.families import resolve_weight_file
from d3fast.hub.suspect import ImageInput, Request, Suspect
from d3fast.io.paths import checked_file
from d3fast.io.untrusted import printable, read_limited

MODEL, TRUTH = "model.pt", "ground_truth.csv"
EXAMPLES = ("clean-example-data", "clean_example_data", "example_data")
_MAX_TRUTH = 64
_POISONED = {"0": "clean", "1": "poisoned"}


def resolve_trojai(request: Request) -> Suspect | None:
    """Read a model folder of TrojAI; ``None`` for other forms of model.

    Raises:
        ValueError: a checkpoint beside the folder; a model that is refused, with the reason.
        OSError: a file that cannot be opened.
    """
    folder = Path(request.model)
    if "://" in request.model or not (folder / MODEL).is_file():
        return None
    examples = [name for name in EXAMPLES if (folder / name).is_dir()]
    if not examples and not (folder / TRUTH).is_file():
        return None
    if request.checkpoint is not None:
        raise ValueError(f"{printable(folder)} brings its own {MODEL}: leave out --checkpoint")
    given = request.mean is not None
    wanted = replace(
        request,
        model=str(checked_file(folder / MODEL, folder)),
        mean=request.mean or (0.0,) * 3,
        std=request.std or (1.0,) * 3,
    )
    suspect = resolve_weight_file(wanted)
    assert suspect is not None
    notes = [f"A model folder of TrojAI: {printable(folder.name, 80)}.", *_truth(folder)]
    if not given:
        notes.append("Images are taken in [0, 1] without a normalisation (--mean, --std).")
    if examples:
        notes.append(f"Its clean samples: --data {printable(folder / examples[0])}")
    assert isinstance(suspect.input, ImageInput)
    return replace(
        suspect,
        name=folder.name,
        input=replace(suspect.input, shorter=None),
        notes=(*notes, *suspect.notes),
    )


def _truth(folder: Path) -> list[str]:
    path = folder / TRUTH
    if not path.is_file():
        return []
    content = read_limited(checked_file(path, folder), _MAX_TRUTH)
    said = _POISONED.get(content.decode("ascii", "replace").strip())
    return [f"{TRUTH} says: {said}. Nothing here uses it."] if said else []
