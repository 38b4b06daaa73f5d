# SPDX-License-Identifier: Apache-2.0
"""The tokens of a vocabulary as text, and which of them a trigger may consist of."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.io.untrusted import printable

_UNUSED = re.compile(r"^[\[<](unused|extra_id_|reserved|pad)", re.IGNORECASE)


def ordinary_ids(tokenizer: Any) -> Tensor:
    """Return the ids of all tokens but special and reserved ones, (V,) int64.

    Args:
        tokenizer: a tokenizer of transformers.
    """
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_ids)
    return torch.tensor(
        [
            at
            for at, token in enumerate(tokens)
            if token is not None and at not in special and not _UNUSED.match(token)
        ],
        dtype=torch.long,
    )


def token_text(tokens: Sequence[int], tokenizer: Any | None = None, most: int = 120) -> str:
    r"""Return tokens as one printable line; the vocabulary may be hostile.

    Args:
        tokens: ids.
        tokenizer: a tokenizer of transformers; ids are listed without one.
        most: number of characters to keep.

    Example:
        >>> token_text([7, 9])
        'token 7, token 9'
    """
    if tokenizer is None:
        return ", ".join(f"token {token}" for token in tokens)
    return printable(tokenizer.decode(list(tokens)).strip(), most)
