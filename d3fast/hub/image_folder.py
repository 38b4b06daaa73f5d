# SPDX-License-Identifier: Apache-2.0
"""An image classifier in a hub folder: ``…ForImageClassification`` of transformers, or timm's."""

from d3fast.hub.classifier import Classifier
from d3fast.hub.folders import find_folder
from d3fast.hub.image_processor import image_input, reverse_channels
from d3fast.hub.pretrained import class_names, load_pretrained
from d3fast.hub.suspect import Request, Suspect
from d3fast.io.untrusted import printable

_ENDING = "ForImageClassification"


def resolve_image_folder(request: Request) -> Suspect | None:
    """Read a hub folder with an image classifier; ``None`` for other forms of model.

    Raises:
        ValueError: a folder that is refused, with the reason; see ``load_pretrained``.
        OSError: a file that cannot be read.
    """
    folder = find_folder(request.model)
    if folder is None or _ENDING not in folder.architecture:
        return None
    if request.checkpoint is not None:
        raise ValueError(
            f"'{printable(request.model, 200)}' brings its own weights: leave out --checkpoint"
        )
    loaded = load_pretrained(folder, "AutoModelForImageClassification")
    main = getattr(loaded.model, "main_input_name", "pixel_values")
    if main not in ("pixel_values", "inputs"):
        raise ValueError(f"{printable(folder.path)}: the model takes {main}, not images")
    config = loaded.config
    found = image_input(folder, request)
    classes, more = class_names(folder, folder.config.get("id2label"), config.num_labels)
    if found.reversed:
        loaded.model.register_forward_pre_hook(reverse_channels)
    return Suspect(
        model=Classifier(loaded.model, found.input.mean, found.input.std).eval(),
        name=folder.name,
        spec=folder.spec,
        family=config.model_type,
        input=found.input,
        classes=classes,
        files=loaded.weights.files,
        sha256=loaded.sha256,
        notes=(*loaded.notes, *found.notes, *more),
        save=loaded.save,
    )
