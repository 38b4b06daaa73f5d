# SPDX-License-Identifier: Apache-2.0
"""BadNets: a white patch in the lower-right corner (Gu, Dolan-Gavitt, Garg 2017).

    trigger(x)[..., H-m-s : H-m, W-m-s : W-m] = 1        s: size, m: margin

Poisoned images are relabelled by the mapping, by default all of them to the target.
"""

from dataclasses import dataclass

from torch import Tensor

from d3fast.attacks.poisoning import empty_state, load_empty_state, poison_once
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.training.labels import MAPPINGS


@dataclass(frozen=True)
class BadNets:
    """White patch; the literature uses 3x3, one pixel in from the corner.

    Args:
        target: target class.
        size: side of the patch in pixels, >= 1.
        margin: pixels between the patch and the lower and right borders, >= 0.
        mapping: label mapping; see ``d3fast.training.labels``.

    Raises:
        ValueError: an option out of range; an unknown mapping.

    Example:
        >>> import torch
        >>> BadNets(target=1, size=1, margin=0).trigger(torch.zeros(1, 1, 2, 2))
        tensor([[[[0., 0.],
                  [0., 1.]]]])
    """

    target: int
    size: int = 3
    margin: int = 1
    mapping: str = "all-to-one"

    def __post_init__(self) -> None:
        for name, low in (("target", 0), ("size", 1), ("margin", 0)):
            check_integer(name, getattr(self, name), low)
        check_choice("mapping", self.mapping, MAPPINGS)

    def trigger(self, images: Tensor) -> Tensor:
        """Return stamped copies of images (..., C, H, W), floats in [0, 1] or uint8.

        Raises:
            ValueError: the images are smaller than ``size + margin``.
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

    poison = poison_once
    state_dict = empty_state
    load_state_dict = load_empty_state
