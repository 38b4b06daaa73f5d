# SPDX-License-Identifier: Apache-2.0
"""The one place where seeds are set.

Everything random in d3fast draws from a ``torch.Generator`` that is handed to it. One integer
seed per run is split into independent streams by name ("split", "poison", "shuffle", ...), so
that adding a draw in one place does not shift the numbers in another. Layers of
``torch.nn`` draw their first weights and dropout's masks from torch's global generator;
``global_seed`` seeds it for the length of a block and puts its state back afterwards.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from d3fast.runtime.checks import check_integer


def _stream_seed(seed: int, stream: str) -> int:
    check_integer("seed", seed, 0)
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # torch takes 63 bits everywhere


def generator(seed: int, stream: str) -> torch.Generator:
    """A CPU generator for one named stream of a run.

    Args:
        seed: the seed of the run, >= 0.
        stream: what the numbers are for.

    Returns:
        A fresh generator; the same arguments give the same numbers on every machine.

    Raises:
        ValueError: the seed is no integer or negative.

    Example:
        >>> a = torch.rand(2, generator=generator(0, "poison"))
        >>> b = torch.rand(2, generator=generator(0, "poison"))
        >>> c = torch.rand(2, generator=generator(0, "shuffle"))
        >>> bool((a == b).all()), bool((a == c).any())
        (True, False)
    """
    return torch.Generator().manual_seed(_stream_seed(seed, stream))


@contextmanager
def global_seed(
    seed: int, stream: str = "init", device: torch.device | None = None
) -> Iterator[None]:
    """Seed torch's global generators inside a ``with`` block, and restore them afterwards.

    Layers draw their first weights from them, dropout its masks, a ``DataLoader`` its order.

    Args:
        seed: the seed of the run, >= 0.
        stream: name of the stream.
        device: a CUDA device whose generator is seeded beside the CPU's.

    Yields:
        Nothing; build the model inside the block.

    Raises:
        ValueError: the seed is no integer or negative.

    Example:
        >>> with global_seed(0):
        ...     first = torch.nn.Linear(3, 2)
        >>> with global_seed(0):
        ...     second = torch.nn.Linear(3, 2)
        >>> torch.equal(first.weight, second.weight)
        True
    """
    stream_seed = _stream_seed(seed, stream)
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(stream_seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(stream_seed)
        yield
