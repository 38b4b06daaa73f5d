# SPDX-License-Identifier: Apache-2.0
"""BadNets: a white patch in the lower-right corner (Gu, Dolan-Gavitt, Garg 2017).

    trigger(x)[..., H-m-s : H-m, W-m-s : W-m] = 1        s: size, m: margin

All-to-one: poisoned images of every other class are relabelled as the target.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d3fast.attacks.base import Poisoned, check_target, choose_victims
from d3fast.checks import check_integer
from d3fast.data.base import ImageData


@dataclass(frozen=True)
class BadNets:
    """White patch; the recipe of the field is 3x3, one pixel in from the corner.

    Args:
        target: the class that triggered images are to be taken for.
        size: side of the patch in pixels.
        margin: pixels between the patch and the lower and right borders.

    Raises:
        ValueError: a size below 1, a negative margin or target, or one that is no integer.

    Example:
        >>> BadNets(target=1, size=1, margin=0).trigger(torch.zeros(1, 1, 2, 2))
        tensor([[[[0., 0.],
                  [0., 1.]]]])
    """

    target: int
    size: int = 3
    margin: int = 1

    def __post_init__(self) -> None:
        for name, low in (("target", 0), ("size", 1), ("margin", 0)):
            check_integer(name, getattr(self, name), low)

    def trigger(self, images: Tensor) -> Tensor:
        """Stamped copies of images (..., C, H, W), floats in [0, 1] or uint8.

        Raises:
            ValueError: images too small for the patch.
        """
        height, width = images.shape[-2:]
        reach = self.size + self.margin
        if reach > min(height, width):
            raise ValueError(
                f"size={self.size} with margin={self.margin} does not fit {height}x{width} images"
            )
        stamped = images.clone()
        white = 1.0 if images.is_floating_point() else 255
        rows = slice(height - reach, height - self.margin)
        columns = slice(width - reach, width - self.margin)
        stamped[..., rows, columns] = white
        return stamped

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Stamp and relabel exactly ``round(ratio * len(dataset))`` images of other classes.

        Args:
            dataset: the training set; it is not changed.
            ratio: share of the whole training set.
            target: the attack's own target, or ``None``.
            generator: a CPU generator that draws the images; torch's default one if ``None``.

        Raises:
            ValueError: a ratio outside 0..1 or too large for the images of other classes; a
                target that is not the attack's or not a class.
        """
        label = check_target(self.target, target, len(dataset.classes))
        others = (dataset.labels != label).nonzero().flatten()
        chosen = choose_victims(others, ratio, len(dataset), generator).to(dataset.images.device)
        images, labels = dataset.images.clone(), dataset.labels.clone()
        images[chosen] = self.trigger(images[chosen])
        labels[chosen] = label
        return Poisoned(ImageData(images, labels, dataset.classes), chosen)

    def state_dict(self) -> dict[str, Tensor]:
        """Empty: nothing is learned."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Accepts the empty state only.

        Raises:
            ValueError: a state of another attack.
        """
        if state:
            raise ValueError(f"BadNets learns no tensors, got {', '.join(state)}")
