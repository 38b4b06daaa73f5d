# SPDX-License-Identifier: Apache-2.0
"""BadNets: a white patch in the lower-right corner (Gu, Dolan-Gavitt, Garg 2017).

    trigger(x)[..., H-m-s : H-m, W-m-s : W-m] = 1        s: size, m: margin

Poisoned images are relabelled as the mapping says, usually all of them as the target.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from d3fast.attacks.base import Poisoned, poison_once, refuse_state
from d3fast.data.base import ImageData
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.training.labels import MAPPINGS


@dataclass(frozen=True)
class BadNets:
    """White patch; the recipe of the field is 3x3, one pixel in from the corner.

    Args:
        target: the class that triggered images are to be taken for.
        size: side of the patch in pixels.
        margin: pixels between the patch and the lower and right borders.
        mapping: which labels poisoned images get; see ``d3fast.training.labels``.

    Raises:
        ValueError: a size below 1, a negative margin or target, or one that is no integer; an
            unknown mapping.

    Example:
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
        """Stamp and relabel exactly ``round(ratio * len(dataset))`` images; see ``poison_once``."""
        return poison_once(self, dataset, ratio, target, generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Empty: nothing is learned."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Accepts the empty state only; raises ``ValueError`` on any other."""
        refuse_state(self, state)
