# SPDX-License-Identifier: Apache-2.0
"""ANP, adversarial neuron pruning: prune the channels that are most sensitive to perturbation.

    min over m in [0, 1]^n of   alpha * CE(m, 0, 0)  +  (1 - alpha) * max CE(m, delta, xi)
                                            over delta, xi in [-eps, eps]^n

where channel i of every batch norm has weight (m_i + delta_i) * gamma_i and bias
(1 + xi_i) * beta_i. The channels of a backdoor are inactive on clean data but change the
prediction once amplified, so the minimisation drives their masks to 0. Channels are pruned in the
order of their masks: gamma becomes 0, the bias stays. Held-out clean samples decide how many; see
``ANP``.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from d3fast.defenses.base import DefenseResult, OnEpoch, on_copy
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loaders import class_scores, yields_nothing
from d3fast.training.loop import Epoch, Loss, fit
from d3fast.training.metrics import evaluate

_STEPS = 100  # of pruning, from no channel to all whose mask fell
_PATIENCE = 3  # numbers of channels in a row that cost too much and end the pruning


@dataclass(frozen=True)
class ANP:
    """Adversarial neuron pruning (Wu, Wang, NeurIPS 2021).

    The defaults of ``eps``, ``alpha``, ``inner_steps``, ``momentum`` and ``steps`` are the paper's,
    ``lr`` is that of common comparisons: at the paper's 0.2 all masks that fall are 0 within some
    steps, and their order is lost. Channels are ordered by the mean of their mask over the search,
    in which no two are tied, and as many of them are pruned as keep the accuracy on ``clean_val``
    within ``max_acc_drop`` of the suspect's. The paper prunes masks below 0.2, a threshold for its
    own networks, and loses 1.5 points.

    During the search batch norm uses batch statistics without updating its running statistics, as
    in the public code; all other modules are in eval mode. The paper does not specify this. With
    running statistics a perturbed layer would change the scale of every later layer, and the masks
    would react to that instead of the backdoor. Only trainable gammas change.

    The history has one record per pass over ``clean_train``: the loss is the objective above, the
    accuracy that of the masked model. ``on_epoch`` gets the model with gammas times masks.

    Args:
        eps: bound of the perturbations.
        alpha: weight of the unperturbed loss, in [0, 1].
        inner_steps: steps of sign ascent from a random start, each of length eps / inner_steps.
            The result is clipped to [-eps, eps], as in the formula: with one step its mean size is
            0.75 eps. The public code does not clip.
        lr: learning rate of the masks.
        momentum: momentum of the masks.
        steps: number of batches in total, over repeated passes of ``clean_train``.
        max_acc_drop: accuracy that pruning may cost, as a fraction in [0, 1].
        seed: draws the random starts.
        on_epoch: called after every pass with its record and the model in eval mode.

    Raises:
        ValueError: an option out of range. When called: no ``clean_val``; a model without a
            trainable batch-norm weight; see also ``fit``.

    Example:
        >>> model = nn.Sequential(
        ...     nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)
        ... )
        >>> loader = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]
        >>> len(ANP(steps=3)(model, loader, loader, progress=False).history)
        3
    """

    eps: float = 0.4
    alpha: float = 0.2
    inner_steps: int = 1
    lr: float = 0.01
    momentum: float = 0.9
    steps: int = 2000
    max_acc_drop: float = 0.02
    seed: int = 0
    on_epoch: OnEpoch | None = None

    def __post_init__(self) -> None:
        for name in ("eps", "alpha", "lr", "momentum", "max_acc_drop"):
            check_number(name, getattr(self, name))
        for name in ("alpha", "max_acc_drop"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)!r}")
        check_integer("inner_steps", self.inner_steps, 1)
        check_integer("steps", self.steps, 1)
        check_integer("seed", self.seed, 0)

    def __call__(
        self,
        model: nn.Module,
        clean_train: Iterable[Any],
        clean_val: Iterable[Any] | None,
        *,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> DefenseResult:
        """Prune a copy of the model; see ``Defense``. ``clean_val`` is required."""
        if clean_val is None:
            raise ValueError("ANP chooses its threshold on clean_val, got None")

        def work(repaired: nn.Module, device: torch.device) -> tuple[Epoch, ...]:
            neurons = Neurons(repaired)
            history = self._search(neurons, clean_train, device, progress)
            prune(neurons, clean_val, self.max_acc_drop)
            return history

        return on_copy(model, device, work, self.seed)

    def _search(
        self,
        neurons: "Neurons",
        clean_train: Iterable[Any],
        device: torch.device,
        progress: bool,
    ) -> tuple[Epoch, ...]:
        """Minimise the objective over ``neurons.masks`` in place."""
        draw = generator(self.seed, "anp perturbations")

        def gradients(
            model: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss
        ) -> tuple[Tensor, Tensor, Tensor]:
            with _batch_statistics(model):
                delta, xi = self.perturbation(neurons, inputs, labels, loss, draw)
                logits = neurons.scores(inputs, neurons.masks)
                perturbed = neurons.scores(inputs, neurons.masks + delta, xi)
            valid = labels.clamp(0, logits.shape[1] - 1)
            value = self.alpha * loss(logits, valid) + (1 - self.alpha) * loss(perturbed, valid)
            (neurons.masks.grad,) = torch.autograd.grad(value, [neurons.masks])
            return logits, labels, value

        def report(record: Epoch, model: nn.Module) -> None:
            if self.on_epoch is not None:
                neurons.write(neurons.masks.detach())
                self.on_epoch(record, model)

        optimizer = torch.optim.SGD([neurons.masks], self.lr, self.momentum)
        optimizer.register_step_post_hook(neurons.clip_and_add)
        batches = _count(clean_train)
        return fit(
            neurons.model,
            _FirstBatches(clean_train, self.steps),
            nn.CrossEntropyLoss(),
            optimizer,
            epochs=-(-self.steps // batches),
            device=device,
            on_epoch=report,
            title="ANP: masks",
            progress=progress,
            gradients=gradients,
        )

    def perturbation(
        self, neurons: "Neurons", inputs: Tensor, labels: Tensor, loss: Loss, draw: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Find perturbations of weights and biases, within ``eps``, that raise the loss.

        Args:
            neurons: the channels with their masks; they are not changed.
            inputs: one batch.
            labels: (N,) int64.
            loss: (logits, labels) -> 0-dim tensor.
            draw: a CPU generator that draws the random start.

        Returns:
            delta (n,) and xi (n,).
        """
        masks = neurons.masks.detach()
        start = torch.rand(2, len(masks), generator=draw).to(masks)
        perturbation = self.eps * (2 * start - 1)  # row 0 delta, row 1 xi
        for _ in range(self.inner_steps):
            perturbation.requires_grad_()
            logits = neurons.scores(inputs, masks + perturbation[0], perturbation[1])
            value = loss(logits, labels.clamp(0, logits.shape[1] - 1))
            (gradient,) = torch.autograd.grad(value, [perturbation])
            step = self.eps / self.inner_steps
            perturbation = perturbation.detach() + step * gradient.sign()
            perturbation = perturbation.clamp(-self.eps, self.eps)
        return perturbation[0], perturbation[1]


class Neurons:
    """Batch-norm channels of a model, each with a mask that starts at 1.

    Args:
        model: on its device already.

    Attributes:
        model: the model.
        masks: (n,) masks of all norms, concatenated in the order of ``named_modules``.
        sums: (n,) sums of the masks after every step, which order the channels for pruning.

    Raises:
        ValueError: the model has no batch norm with a trainable weight.

    Example:
        >>> Neurons(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))).masks
        tensor([1., 1., 1.], requires_grad=True)
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._scorer = _Scorer(model)
        self._norms = {
            name: module
            for name, module in self._scorer.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            and isinstance(module.weight, nn.Parameter)
            and module.weight.requires_grad
        }
        if not self._norms:
            raise ValueError(
                f"ANP prunes channels of batch norm, and {type(model).__name__} has no batch norm "
                "with a trainable weight"
            )
        self._gammas = torch.cat([norm.weight.detach() for norm in self._norms.values()])
        self.masks = torch.ones_like(self._gammas).requires_grad_()
        self.sums = torch.zeros_like(self._gammas)
        self.steps = 0

    def scores(self, inputs: Tensor, factors: Tensor, xi: Tensor | None = None) -> Tensor:
        """Return class scores (N, classes) with weights times factors and biases times 1 + xi.

        Args:
            inputs: one batch.
            factors: (n,) factors of the batch-norm weights.
            xi: (n,) relative changes of the biases; 0 if ``None``.
        """
        changed = {}
        for name, gamma in zip(self._norms, self._per_norm(factors * self._gammas), strict=True):
            changed[f"{name}.weight"] = gamma
        if xi is not None:
            for (name, norm), part in zip(self._norms.items(), self._per_norm(xi), strict=True):
                if norm.bias is not None:
                    changed[f"{name}.bias"] = (1 + part) * norm.bias
        scores: Tensor = functional_call(self._scorer, changed, (inputs,))
        return scores

    @torch.no_grad()
    def write(self, factors: Tensor) -> None:
        """Write the weights times factors (n,) into the model."""
        gammas = self._per_norm(factors * self._gammas)
        for norm, gamma in zip(self._norms.values(), gammas, strict=True):
            norm.weight.copy_(gamma)

    @torch.no_grad()
    def clip_and_add(self, *_: Any) -> None:
        """Clip the masks to [0, 1] and add them to the sums; a post hook of the optimizer step."""
        self.sums += self.masks.clamp_(0, 1)
        self.steps += 1

    def _per_norm(self, channels: Tensor) -> tuple[Tensor, ...]:
        return torch.split(channels, [norm.num_features for norm in self._norms.values()])


def prune(neurons: Neurons, clean_val: Iterable[Any], max_acc_drop: float) -> int:
    """Prune the channels of the smallest masks, as many as clean accuracy allows, in place.

    Up to ``_STEPS`` numbers of channels are tried, spread over those whose mask fell at all.
    Accuracy on few samples is not monotone, so a single number that costs too much does not end the
    pruning; ``_PATIENCE`` of them in a row do.

    Args:
        neurons: the channels after the search.
        clean_val: held-out clean samples.
        max_acc_drop: accuracy that pruning may cost, as a fraction.

    Returns:
        The number of pruned channels.
    """
    order = neurons.sums.argsort(stable=True)
    fallen = int((neurons.sums < neurons.steps).sum())
    neurons.write(torch.ones_like(neurons.sums))
    before = evaluate(neurons.model, clean_val, None, name="clean_val")
    kept, best, failures = 0, torch.ones_like(neurons.sums), 0
    for step in range(1, min(_STEPS, fallen) + 1):
        count = round(step * fallen / min(_STEPS, fallen))
        tried = torch.ones_like(neurons.sums).index_fill_(0, order[:count], 0.0)
        neurons.write(tried)
        after = evaluate(neurons.model, clean_val, None, name="clean_val")
        # Compare counts: rates would round.
        if before.correct - after.correct <= max_acc_drop * before.images + 1e-9:
            kept, best, failures = count, tried, 0
        elif (failures := failures + 1) == _PATIENCE:
            break
    neurons.write(best)
    return kept


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[None]:
    """Use batch statistics without updating the running ones; other modules in eval mode."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    tracked = [norm.track_running_stats for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, tracking in zip(norms, tracked, strict=True):
            norm.track_running_stats = tracking


class _Scorer(nn.Module):
    """Model whose outputs are checked to be (N, classes)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return class_scores(self.model, inputs)


class _FirstBatches:
    """Loader that ends after a total number of batches over all passes."""

    def __init__(self, loader: Iterable[Any], batches: int) -> None:
        self.loader, self.remaining = loader, batches

    def __iter__(self) -> Iterator[Any]:
        for batch in islice(self.loader, self.remaining):
            self.remaining -= 1
            yield batch


def _count(loader: Any) -> int:
    """Return the number of batches per pass; a loader without a length is iterated once."""
    try:
        batches = len(loader)
    except TypeError:
        batches = sum(1 for _ in loader)
    if batches == 0:
        raise yields_nothing("clean_loader")
    return batches
