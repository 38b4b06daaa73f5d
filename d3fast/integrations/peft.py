# SPDX-License-Identifier: Apache-2.0
r"""``MergedDistance``: the distance of weights with LoRA adapters from the suspect's, a loss term.

A layer with LoRA adapters computes with W_0 + sum_a s_a B_a A_a. D3 pushes that weight away from
the suspect's, not B and A: the factors may have moved far while their product has not. With the
suspect's own adapters B', A' (zeros in B' where there were none yet)

    delta = sum_a s_a B_a A_a - s'_a B'_a A'_a  =  L R,    D = ||delta||_F,
    L = [s_a B_a - s'_a B'_a, s'_a B'_a],    R = [A_a; A_a - A'_a],   for all a
    D^2 = sum of (L^T L) * (R R^T), element by element

so that no m x n matrix is formed: O((m + n) r^2) operations for rank r, and 2 (m + n) r numbers per
layer in memory until the backward pass. The differences make D exactly 0 at the start and keep its
digits near 0. Sums are in float64 for adapters of any dtype.

Method: arXiv 2411.09585; the factors: Hu et al., "LoRA", arXiv 2106.09685.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.runtime.checks import check_number

try:
    from peft.tuners.lora.layer import LoraLayer, MultiheadAttention, ParamWrapper
    from peft.utils.integrations import dequantize_module_weight
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "peft":
        raise
    raise ImportError("d3fast.integrations.peft needs peft: pip install 'd3fast[peft]'") from None


@dataclass(frozen=True)
class _Adapter:
    """Adapter of one layer, now or when the repair began: s, B (m, r) and A (r, n)."""

    scaling: float
    left: Tensor
    right: Tensor

    def wide(self, device: torch.device) -> "_Adapter":
        """Return the adapter in float64, in the autograd graph."""
        left, right = (x.to(device, torch.float64) for x in (self.left, self.right))
        return _Adapter(self.scaling, left, right)


def _stored(layer: Any, adapter: str) -> tuple[Tensor, Tensor]:
    """Return B (m, r) and A (r, n) of an adapter; a convolution's kernel is flattened."""
    if adapter in layer.lora_A:
        return layer.lora_B[adapter].weight.flatten(1), layer.lora_A[adapter].weight.flatten(1)
    return layer.lora_embedding_B[adapter], layer.lora_embedding_A[adapter]


def _present(layer: Any, adapter: str) -> _Adapter:
    return _Adapter(float(layer.scaling[adapter]), *_stored(layer, adapter))


def _adapters(layer: Any) -> list[str]:
    """Return the names of the active adapters that the layer has."""
    return [adapter for adapter in layer.active_adapters if adapter in layer.r]


def _check(name: str, layer: Any) -> None:
    if isinstance(layer, MultiheadAttention | ParamWrapper):
        raise ValueError(f"{name} is a {type(layer).__name__} of LoRA, whose weight is no W + BA")
    if getattr(layer.get_base_layer(), "groups", 1) != 1:
        raise ValueError(f"{name} is a convolution in groups, whose weight is no W + BA")
    for adapter in _adapters(layer):
        if layer.lora_variant.get(adapter) is not None:
            kind = type(layer.lora_variant[adapter]).__name__
            raise ValueError(
                f"adapter {adapter!r} of {name} is a {kind}, whose weight is no W + BA"
            )
    if layer.merged:
        raise ValueError(f"the adapters of {name} are merged: call unmerge_adapter() first")


def _lora_layers(model: nn.Module) -> dict[str, Any]:
    found = {name: m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    if not any(_adapters(layer) for layer in found.values()):
        raise ValueError(f"{type(model).__name__} has no layer with an active LoRA adapter")
    for name, layer in found.items():
        _check(name, layer)
    return found


def _squared(left: Tensor, right: Tensor) -> Tensor:
    """Return ||L R||_F^2 from the Gram matrices of L (m, k) and R (k, n) in float64."""
    return ((left.T @ left) * (right @ right.T)).sum()


def _root(squared: Tensor) -> Tensor:
    """Return the square root, with derivative 0 at 0; rounding may give a square below 0."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def _distance(layer: Any, start: Mapping[str, _Adapter]) -> Tensor:
    """Return D of one layer in float64, differentiable in the active adapters' factors."""
    device = _stored(layer, next(iter(layer.r)))[0].device
    now = {a: _present(layer, a).wide(device) for a in _adapters(layer)}
    then = {a: adapter.wide(device) for a, adapter in start.items()}
    lefts, rights = [], []
    for name in dict.fromkeys((*then, *now)):
        if name in now and name in then:
            new, old = now[name], then[name]
            change = new.scaling * (new.left - old.left)
            lefts += [change + (new.scaling - old.scaling) * old.left, old.scaling * old.left]
            rights += [new.right, new.right - old.right]
        else:  # added or switched off since
            only, sign = (now[name], 1) if name in now else (then[name], -1)
            lefts.append(sign * only.scaling * only.left)
            rights.append(only.right)
    if not lefts:
        return torch.zeros((), dtype=torch.float64, device=device)
    return _root(_squared(torch.cat(lefts, dim=1), torch.cat(rights)))


@torch.no_grad()
def _norm_at_start(layer: Any, start: Mapping[str, _Adapter]) -> Tensor:
    """Return ||W_0 + sum s' B' A'||_F in float64, without an m x n temporary."""
    weight = dequantize_module_weight(layer.get_base_layer()).detach()
    norm = torch.linalg.vector_norm(weight.float()).double()
    if not start:
        return norm
    parts = [adapter.wide(weight.device) for adapter in start.values()]
    left = torch.cat([part.scaling * part.left for part in parts], dim=1)
    right = torch.cat([part.right for part in parts])
    transposed = len(layer.lora_embedding_A) > 0 or getattr(layer, "fan_in_fan_out", False)
    matrix = weight.T if transposed else weight.flatten(1)
    inner = ((left.float().T @ matrix.float()) * right.float()).sum().double()
    return _root(norm.square() + 2 * inner + _squared(left, right))


def _copied(adapter: _Adapter) -> _Adapter:
    left, right = (x.detach().clone() for x in (adapter.left, adapter.right))
    return _Adapter(adapter.scaling, left, right)


class MergedDistance:
    """Loss term: -w * sum of min(D, radius * ||W_start||) over the layers with LoRA adapters.

    Build it when the repair begins: the adapters at that time give the suspect's weight, W_start.
    Add it to a ``CleanLoss`` and train the adapters with an optimizer that has no push of its own:
    ``torch.optim.SGD``, or a ``D3FusedSGD`` whose groups with adapters have ``distance_weight=0,
    constraint=None``. Layers that are trained in full (``modules_to_save``) are not part of the
    term; ``d3fast.param_groups(model)`` tracks the head among them.

    The gradient of the term is set to 0 at the start, where it is undefined: see ``warm_start``.

    Args:
        model: model with at least one active LoRA adapter, unmerged.
        weight: w.
        radius: radius of the ball within which a layer is pushed, in units of ||W_start||; ``None``
            for no bound. The push on B grows with A and the push on A with B, so without a bound
            the distance accelerates once the clean loss allows it.

    Attributes:
        weight: w; may change between steps.

    Raises:
        ValueError: no active adapter; variants whose weight is not W + BA (DoRA and others),
            convolutions in groups, merged adapters; an option out of range.

    Example:
        >>> from torch import nn
        >>> from peft import LoraConfig, get_peft_model
        >>> suspect = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> model = get_peft_model(suspect, LoraConfig(r=2, target_modules=["0", "2"]))
        >>> distance = MergedDistance(model, weight=0.5, radius=None)
        >>> float(distance.total_distance())
        0.0
        >>> distance.warm_start(0.1)
        >>> loss = nn.functional.cross_entropy(model(torch.ones(1, 4)), torch.tensor([2]))
        >>> (loss + distance()).backward()
        >>> bool(distance() == -0.5 * distance.total_distance())
        True
    """

    def __init__(self, model: nn.Module, weight: float = 1.0, radius: float | None = 1.0) -> None:
        check_number("weight", weight)
        if radius is not None:
            check_number("radius", radius)
        self.weight, self.radius = weight, radius
        self._layers = _lora_layers(model)
        self._take(
            {
                name: {a: _copied(_present(layer, a)) for a in _adapters(layer)}
                for name, layer in self._layers.items()
            }
        )

    def _take(self, starts: dict[str, dict[str, _Adapter]]) -> None:
        self._starts = starts
        self._norms: dict[str, Tensor] = {}

    def _norm(self, name: str) -> Tensor:
        """Return ||W_start|| of a layer, computed once."""
        if name not in self._norms:
            _check(name, self._layers[name])
            self._norms[name] = _norm_at_start(self._layers[name], self._starts[name])
        return self._norms[name]

    def _each(self) -> dict[str, Tensor]:
        return {name: _distance(layer, self._starts[name]) for name, layer in self._layers.items()}

    def _sum(self, terms: list[Tensor]) -> Tensor:
        total = torch.stack([term.to(terms[0].device) for term in terms]).sum()
        layer = next(iter(self._layers.values()))
        stored, _ = _stored(layer, next(iter(layer.r)))
        return total.to(torch.promote_types(stored.dtype, torch.float32))

    def __call__(self) -> Tensor:
        """Return the loss term, 0-dim, float32 (float64 for adapters in float64)."""
        each = self._each()
        if self.radius is not None:
            each = {
                name: d.clamp(max=self.radius * self._norm(name).to(d.device))
                for name, d in each.items()
            }
        return -self.weight * self._sum(list(each.values()))

    @torch.no_grad()
    def distances(self) -> dict[str, Tensor]:
        """Return D by layer name: 0-dim float64 tensors on the layer's device."""
        return self._each()

    @torch.no_grad()
    def total_distance(self) -> Tensor:
        """Return the sum of D over the layers, 0-dim, in the dtype of the loss term."""
        return self._sum(list(self._each().values()))

    @torch.no_grad()
    def warm_start(self, share: float, generator: torch.Generator | None = None) -> None:
        """Move every layer by a share of ||W_start||, before the first step.

        At the start the distance has no gradient: where the clean loss is below its bound no
        weight would ever move. Normal noise is added to B (to A where A is 0).

        Args:
            share: length of the move in units of ||W_start||, >= 0; for a layer at its start,
                D / ||W_start|| afterwards.
            generator: source of randomness; torch's default one if ``None``.

        Raises:
            ValueError: ``share`` out of range; no trainable adapter.
        """
        check_number("share", share)
        moved = [self._add_noise(name, share, generator) for name in self._layers]
        if not any(moved):
            raise ValueError("no active LoRA adapter is trainable: load it with is_trainable=True")

    def _add_noise(self, name: str, share: float, generator: torch.Generator | None) -> bool:
        layer, noise, lefts, rights = self._layers[name], [], [], []
        for adapter in _adapters(layer):
            at = _present(layer, adapter)
            in_left = bool(at.right.any())
            moved = at.left if in_left else at.right
            if not moved.requires_grad:
                continue
            on = moved.device if generator is None else generator.device
            drawn = torch.randn(moved.shape, generator=generator, device=on).to(moved).double()
            noise.append((moved, drawn))
            lefts.append(at.scaling * (drawn if in_left else at.left.double()))
            rights.append(at.right.double() if in_left else drawn)
        if not noise:
            return False
        norm = _root(_squared(torch.cat(lefts, dim=1), torch.cat(rights)))
        scale = torch.where(norm > 0, share * self._norm(name).to(norm) / norm, 0.0)
        for moved, drawn in noise:
            moved.add_((drawn * scale).to(moved.dtype))
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the adapters at the start, as tensors and numbers."""
        return {
            name: {
                adapter: {"scaling": s.scaling, "B": s.left.clone(), "A": s.right.clone()}
                for adapter, s in start.items()
            }
            for name, start in self._starts.items()
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the start of a saved repair: the present adapters are trained already.

        Args:
            state_dict: the result of ``state_dict()`` for a model with the same layers.

        Raises:
            ValueError: other layers, or factors of other shapes.
        """
        if set(state_dict) != set(self._layers):
            differ = sorted(set(state_dict) ^ set(self._layers))
            raise ValueError(f"the state is of other layers: {', '.join(differ)}")
        self._take(
            {
                name: {adapter: self._checked(name, adapter, s) for adapter, s in given.items()}
                for name, given in state_dict.items()
            }
        )

    def _checked(self, name: str, adapter: str, saved: Mapping[str, Any]) -> _Adapter:
        layer = self._layers[name]
        left, right = _stored(layer, next(iter(layer.r)))
        b, a = saved["B"], saved["A"]
        want = (left.shape[0], len(a)), (len(a), right.shape[1])
        if (tuple(b.shape), tuple(a.shape)) != want:
            raise ValueError(
                f"B and A of adapter {adapter!r} of {name} must have shapes {want[0]} and "
                f"{want[1]}, got {tuple(b.shape)} and {tuple(a.shape)}"
            )
        return _copied(_Adapter(float(saved["scaling"]), b, a))
