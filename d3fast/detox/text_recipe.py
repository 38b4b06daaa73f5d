# SPDX-License-Identifier: Apache-2.0
"""The recipe of a repair of a text classifier: the last third of its blocks starts anew.

A trigger of words sits deep in a transformer, and a repair of the head alone leaves it. All weight
matrices of the last third of the blocks, and those behind the blocks (pooler, head), start from
random weights of the norm they had and stay on those spheres. docs/text.md has the measurements,
which are of MiniLM alone.
"""

import re

from torch import nn

from d3fast.detox.config import D3Config
from d3fast.optim.blocks import find_blocks

BATCH_SIZE = 32
_SHARE = 3  # one block of so many starts anew


def text_recipe(model: nn.Module) -> D3Config:
    r"""Return the options of a repair of a text classifier.

    Args:
        model: the suspect.

    Raises:
        ValueError: a model without a head.

    Example:
        >>> block = lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4))
        >>> model = nn.Sequential(nn.Embedding(9, 4), *(block() for _ in range(3)), nn.Linear(4, 2))
        >>> text_recipe(model).track
        '^(3\\.0\\.weight|3\\.2\\.weight|4\\.weight)$'
    """
    return D3Config.authors(
        track=_upper(model),
        epochs=10,
        lr=0.03,
        max_grad_norm=1.0,
        distance_weight=0.1,
        max_acc_drop=5.0,
    )


def _upper(model: nn.Module) -> str:
    """Return a regular expression of the matrices of the last blocks and behind all blocks."""
    blocks = find_blocks(model)
    last = blocks[-max(1, round(len(blocks) / _SHARE)) :]
    inside = {id(p) for _, block in blocks for p in block.parameters()}
    chosen = {id(p) for _, block in last for p in block.parameters()}
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    begun, names = False, []
    for name, param in model.named_parameters():
        begun = begun or id(param) in inside
        behind = begun and id(param) not in inside
        if param.ndim > 1 and id(param) not in embeddings and (id(param) in chosen or behind):
            names.append(re.escape(name))
    return f"^({'|'.join(names)})$"
