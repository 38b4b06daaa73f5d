# SPDX-License-Identifier: Apache-2.0
"""Pictures of inverted triggers for an HTML page."""

import base64
import io

import torch
from PIL import Image

from d3fast.audit.inversion import Inversion

_GREY = 0.5


def picture_of(found: Inversion) -> str:
    """Return the masked pattern on grey as a PNG in a data URI, at the images' size.

    Images of one or three channels keep them; other numbers of channels are averaged.

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
