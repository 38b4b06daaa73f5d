# SPDX-License-Identifier: Apache-2.0
"""The recipe of a repair of a text classifier: its blocks start anew, as far as accuracy allows.

A trigger of words sits deep in a transformer, and a repair of the head alone leaves it. The recipe
first restarts and tracks all weight matrices of the last third of the blocks, and those behind the
blocks (pooler, head): they start from random weights of the norm they had and stay on those
spheres. It then restarts all blocks, then half of them, and keeps the first of these repairs that
costs at most one point of held-out accuracy more; see ``d3fast.detox.depth``. docs/text.md has the
measurements: of the last third on MiniLM, of the search on a small BERT.
"""

from torch import nn

from d3fast.detox.config import AUTO_ALL, D3Config
from d3fast.detox.depth import exactly
from d3fast.optim.blocks import find_blocks

BATCH_SIZE = 32
_SHARE = 3  # one block of so many starts anew at least


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
        track=exactly(_upper(model)),
        epochs=10,
        lr=0.03,
        max_grad_norm=1.0,
        distance_weight=0.1,
        restart=AUTO_ALL,
        max_acc_drop=5.0,
    )


def _upper(model: nn.Module) -> list[str]:
    """Return the names of the matrices of the last third of the blocks and behind all blocks."""
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
            names.append(name)
    return names
