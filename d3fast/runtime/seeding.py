# SPDX-License-Identifier: Apache-2.0
"""The one place where seeds are set.

Random code in d3fast takes a ``torch.Generator`` as an argument. One integer seed per run is split
into independent streams by name ("split", "poison", "shuffle", ...), so that an additional draw in
one place does not shift the numbers in another. Layers of ``torch.nn`` draw initial weights and
dropout masks from torch's global generator; ``global_seed`` seeds it inside a block and restores
its state afterwards.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from d3fast.runtime.checks import check_integer


def _stream_seed(seed: int, stream: str) -> int:
    check_integer("seed", seed, 0)
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # every torch generator takes 63 bits


def generator(seed: int, stream: str) -> torch.Generator:
    """Return a new CPU generator for one named stream of a run.

    Args:
        seed: the seed of the run, >= 0.
        stream: name of the stream.

    Returns:
        A generator; equal arguments give equal numbers on every machine.

    Raises:
        ValueError: a seed that is negative or not an integer.

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

    Initial weights of layers, dropout masks and the order of a ``DataLoader`` come from them.

    Args:
        seed: the seed of the run, >= 0.
        stream: name of the stream.
        device: a CUDA device whose generator is seeded beside the CPU's.

    Yields:
        Nothing; build the model inside the block.

    Raises:
        ValueError: a seed that is negative or not an integer.

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
