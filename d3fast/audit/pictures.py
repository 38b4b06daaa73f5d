# SPDX-License-Identifier: Apache-2.0
"""An inverted trigger as a picture that an HTML page can hold."""

import base64
import io

import torch
from PIL import Image

from d3fast.audit.inversion import Inversion

_GREY = 0.5


def picture_of(found: Inversion) -> str:
    """The pattern where the mask is, on grey: a PNG as a data URI, one pixel per pixel.

    Grey and colour images become pictures; of any other number of channels the mean is shown.

    Example:
        >>> found = Inversion(0, torch.ones(1, 2, 2), torch.zeros(1, 2, 2), 4.0, 1.0)
        >>> picture_of(found).startswith("data:image/png;base64,")
        True
    """
    mask, pattern = found.mask.detach().cpu().float(), found.pattern.detach().cpu().float()
    if len(pattern) not in (1, 3):
        pattern = pattern.mean(dim=0, keepdim=True)
    shown = _GREY + mask * (pattern - _GREY)
    levels = (255 * shown.clamp(0, 1)).round().to(torch.uint8)
    pixels = levels[0] if len(levels) == 1 else levels.movedim(0, -1)
    file = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
