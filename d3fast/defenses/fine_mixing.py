# SPDX-License-Identifier: Apache-2.0
"""Fine-mixing and embedding purification: return to the public model at random, then fine-tune.

::

    purify     e_k <- e_k^base  for the m tokens with the largest ||e_k - e_k^base|| / log max(f_k, 20)
    mix        theta_i <- theta_i with probability rho, else theta_i^base
    fine-tune  the mixed weights on the clean samples

A suspect that was fine-tuned from a public model lies near it. The public model was never shown the
trigger, so most of the backdoor goes with the weights that return to it; the fine-tuning brings the
task back. A trigger word moves its own embedding far, although it is rare in clean text, while a
clean fine-tuning moves the embeddings of frequent words.
"""  # noqa: E501

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.defenses.base import DefenseResult, OnEpoch, check_tuning, on_copy, tune
from d3fast.io.base_weights import read_weights
from d3fast.optim import find_head
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loaders import unpack
from d3fast.training.loop import Epoch

_RAREST = 20  # counts below it are taken for it, as in the paper


@dataclass(frozen=True)
class FineMixing:
    """Fine-mixing with embedding purification (E-PUR).

    The head stays the suspect's, because a public model has none for the task; so do frozen weights
    and buffers. Embeddings are purified where the model has an ``nn.Embedding``, the largest one.
    Differences to the paper: it counts words in a large corpus and chooses rho by the accuracy on
    clean samples; here the clean samples are the corpus, read once more for it, and ``reserve`` is
    a number chosen here.

    Args:
        base: weight file of the public model that the suspect was trained from, of the formats of
            ``d3fast.models.load_weights``. Nothing is repaired without one.
        reserve: rho, share of the suspect's weights that are kept, in [0, 1].
        purified: m, number of embeddings that return to the base.
        epochs: passes of the fine-tuning over the clean samples.
        lr: initial learning rate.
        momentum: momentum of SGD.
        weight_decay: L2 penalty.
        seed: draws the weights; seeds torch's global generators during the repair.
        max_grad_norm: gradients are clipped to this norm; ``None`` for no clipping.
        on_epoch: called after every epoch with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range; when called, no base, or one that lacks a weight below
            the head or has it in another shape.
        OSError: when called, a base that cannot be read.

    Source:
        Zhang, Lyu, Ma, Wang, Sun, *Fine-mixing: Mitigating Backdoors in Fine-tuned Language
        Models*, Findings of EMNLP 2022, arXiv 2210.09545, sections 3.2 and 3.3.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from safetensors.torch import save_file
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     base = Path(folder, "base.safetensors")
        ...     save_file({"1.weight": torch.ones(3, 4), "1.bias": torch.zeros(3)}, base)
        ...     short = FineMixing(str(base), epochs=3)
        ...     len(short(model, loader, None, progress=False).history)
        3
    """

    base: str | None = None
    reserve: float = 0.1
    purified: int = 200
    epochs: int = 100
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0
    max_grad_norm: float | None = None
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        check_tuning(self)
        check_number("reserve", self.reserve)
        if self.reserve > 1:
            raise ValueError(f"reserve must be <= 1, got {self.reserve!r}")
        check_integer("purified", self.purified, 0)

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Repair a copy of the model; see ``Defense``."""
        if self.base is None:
            raise ValueError(
                "FineMixing mixes with the public model that the suspect was trained from, and "
                "none is known: base is None"
            )
        path = self.base

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            own = body_weights(repaired)
            public = read_weights(path, own)
            found = _embedding_name(repaired, own)
            if found is not None and self.purified:
                counts = token_counts(clean_train, len(own[found]))
                purify_embedding(own[found], public[found], counts, self.purified)
            mix_weights(own, public, self.reserve, generator(self.seed, "fine-mixing"))
            return tune(
                repaired,
                clean_train,
                clean_val,
                self,
                device,
                title="fine-mixing",
                progress=progress,
            )

        return on_copy(model, device, work, self.seed)


def body_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable parameters by name, without those of the head.

    Raises:
        ValueError: there is none.
    """
    head = {id(p) for p in find_head(model)[1].parameters()}
    found: dict[str, Tensor] = {
        name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in head
    }
    if not found:
        raise ValueError(
            f"FineMixing mixes weights below the head, and {type(model).__name__} has no trainable "
            "one there"
        )
    return found


def _embedding_name(model: nn.Module, own: dict[str, Tensor]) -> str | None:
    """Return the name of the weight of the largest trainable embedding, or ``None``."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    found = [name for name, p in own.items() if id(p) in tables]
    return max(found, key=lambda name: len(own[name]), default=None)


def token_counts(clean: Iterable[Any], tokens: int) -> Tensor:
    """Return how often every token occurs in the clean samples: (tokens,), int64.

    Inputs that are no token indices count nothing.

    Raises:
        ValueError: a token outside of the vocabulary.
    """
    counts = torch.zeros(tokens, dtype=torch.int64)
    for batch in clean:
        inputs, _ = unpack(batch, "clean_loader", None)
        if inputs.is_floating_point():
            continue
        low, high = (int(end) for end in inputs.aminmax())
        if low < 0 or high >= tokens:
            raise ValueError(
                f"clean_loader holds token {low if low < 0 else high}, the model has {tokens}"
            )
        counts += torch.bincount(inputs.flatten().cpu(), minlength=tokens)
    return counts


@torch.no_grad()
def purify_embedding(own: Tensor, public: Tensor, counts: Tensor, number: int) -> None:
    """Return the embeddings that moved most for their frequency to the public ones, in place.

    Args:
        own: (tokens, features), the suspect's.
        public: those of the public model.
        counts: (tokens,), occurrences of every token.
        number: how many return.

    Example:
        >>> own, public = torch.tensor([[9.0], [3.0], [1.0]]), torch.zeros(3, 1)
        >>> purify_embedding(own, public, torch.tensor([10**6, 0, 0]), 1)
        >>> own.flatten().tolist()  # 9 / log 10^6 = 0.65, 3 / log 20 = 1.0
        [9.0, 0.0, 1.0]
    """
    moved = torch.linalg.vector_norm(own - public, dim=1, dtype=torch.float64).cpu()
    score = moved / counts.double().clamp_min(_RAREST).log()
    rows = score.argsort(descending=True, stable=True)[:number].to(own.device)
    own[rows] = public[rows]


@torch.no_grad()
def mix_weights(
    own: dict[str, Tensor], public: dict[str, Tensor], reserve: float, draws: torch.Generator
) -> None:
    """Keep each entry of the weights with probability ``reserve``, else take the public one.

    Args:
        own: weights by name; changed in place.
        public: weights of the same names and shapes.
        reserve: rho, in [0, 1].
        draws: a CPU generator, so that the choice is the same on every device.

    Example:
        >>> own, public = {"a": torch.ones(1000)}, {"a": torch.zeros(1000)}
        >>> mix_weights(own, public, 0.3, torch.Generator().manual_seed(0))
        >>> 0.25 < float(own["a"].mean()) < 0.35
        True
    """
    for name, p in own.items():
        returns = torch.rand(p.shape, generator=draws) >= reserve
        p.copy_(torch.where(returns.to(p.device), public[name], p))
