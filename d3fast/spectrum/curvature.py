# SPDX-License-Identifier: Apache-2.0
r"""Curvature of a loss as a matrix-free operator: Hessian or Gauss-Newton matrix times vector.

    Hessian        H v = d/dtheta <dL/dtheta, v>                           (Pearlmutter 1994)
    Gauss-Newton   G v = J^T (d^2 loss / df^2) J v,   J = df/dtheta        (Schraudolph 2002)

L is the exact mean over a data set (``Samples``); theta is the tracked weights of a model as one
flat vector. Both products use reverse mode twice. The first of the two passes is the same for every
vector, so its graph is kept for as many batches as the memory budget allows; for the other batches
it is recomputed for every product.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from d3fast.optim.groups import Track, param_groups
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.runtime.devices import resolve_device
from d3fast.spectrum.samples import Data, Loss, Samples
from d3fast.training.loaders import class_scores
from d3fast.training.loop import check_weights

KINDS = ("hessian", "gauss-newton")
# Product of one batch: pieces of a vector, one per weight -> pieces of the product.
_Product = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class Symmetric(Protocol):
    """Real symmetric matrix that is known by its products with vectors only."""

    @property
    def size(self) -> int:
        """Number of rows."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of its vectors."""

    @property
    def device(self) -> torch.device:
        """Device of its vectors."""

    def __matmul__(self, vector: Tensor) -> Tensor:
        """Return the product with a vector (size,) as a new tensor."""


@contextmanager
def _second_order() -> Iterator[None]:
    """Use the attention kernel that has a second derivative."""
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        yield


@contextmanager
def _derivative_errors() -> Iterator[None]:
    """Turn autograd's errors about a missing second derivative into one ``ValueError``."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        message = str(error).split("\n")[0].rstrip(".")
        raise ValueError(f"the loss cannot be differentiated twice: {message}") from error


def _check_twice_differentiable(gradient: Sequence[Tensor]) -> None:
    """Raise ``ValueError`` if the graph holds a ``once_differentiable`` function.

    Such a function leaves an error node that leads to no weight, so autograd never evaluates it
    and would return a wrong product without an error.
    """
    seen, stack = set(), [part.grad_fn for part in gradient if part.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if "Error" in node.name():
            raise ValueError(
                "the loss cannot be differentiated twice: a function in it is once_differentiable"
            )
        stack += [following for following, _ in node.next_functions if following is not None]


def _hessian_product(loss: Tensor, params: Sequence[Tensor]) -> _Product:
    gradient = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    _check_twice_differentiable(gradient)
    varying = [i for i, part in enumerate(gradient) if part.requires_grad]
    if not varying:
        raise ValueError(
            "the loss cannot be differentiated twice: its gradient is the same for all weights"
        )

    def product(pieces: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.autograd.grad(
            [gradient[i] for i in varying],
            params,
            [pieces[i] for i in varying],
            retain_graph=True,
            materialize_grads=True,
        )

    return product


def _gauss_newton_product(
    scores: Tensor, labels: Tensor, loss: Loss, params: Sequence[Tensor]
) -> _Product:
    # J^T u is linear in u; the derivative of <J^T u, v> by u is J v.
    dual = torch.zeros_like(scores, requires_grad=True)
    vjp = torch.autograd.grad(scores, params, dual, create_graph=True, materialize_grads=True)
    _check_twice_differentiable(vjp)
    varying = [i for i, part in enumerate(vjp) if part.requires_grad]
    leaf_scores = scores.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf_scores, labels), leaf_scores, create_graph=True)
    if not slope.requires_grad:
        raise ValueError("the loss cannot be differentiated twice by the scores")

    def product(pieces: Sequence[Tensor]) -> Sequence[Tensor]:
        (jvp,) = torch.autograd.grad(
            [vjp[i] for i in varying], dual, [pieces[i] for i in varying], retain_graph=True
        )
        (hjvp,) = torch.autograd.grad(slope, leaf_scores, jvp, retain_graph=True)
        return torch.autograd.grad(scores, params, hjvp, retain_graph=True, materialize_grads=True)

    return product


class Curvature:
    """Hessian or Gauss-Newton matrix of a model's mean loss over a data set.

    Args:
        model: returns (N, classes) scores. A copy is used in eval mode: batch norm uses its running
            statistics, dropout is off.
        loss: (scores, labels) -> mean over the batch, 0-dim; twice differentiable.
        data: yields (inputs, labels), the same in every pass; or a ``Difference`` of two such.
        params: tracked weights, by the rules of ``d3fast.param_groups``: ``"all"``, ``"head"``,
            ``"linear"``, ``"conv+linear"``, a regular expression, a callable. The others are
            constants.
        kind: ``"hessian"``, or ``"gauss-newton"`` (positive semi-definite for a convex loss).
        dtype: ``torch.float64`` or ``torch.float32``; the model's own if ``None``.
        device: where to compute; the device of the model if ``None``.
        keep: approximate bytes of graphs to keep between products. 0 keeps none, which needs the
            least memory and halves the speed.

    Raises:
        ValueError: an invalid option; no weight selected; NaN or inf in weights or loss; data that
            ``Samples`` rejects; a loss that cannot be differentiated twice (at the first product).

    Shapes: a product maps (size,) to (size,), the weights concatenated in the order of ``names``.

    Sources: Pearlmutter, *Fast exact multiplication by the Hessian*, Neural Computation 6, 1994;
    Schraudolph, *Fast curvature matrix-vector products*, Neural Computation 14, 2002.

    Example:
        >>> model = nn.Linear(1, 2, bias=False).double()
        >>> _ = nn.init.zeros_(model.weight)
        >>> data = [(torch.ones(4, 1), torch.zeros(4, dtype=torch.long))]
        >>> hessian = Curvature(model, nn.CrossEntropyLoss(), data)
        >>> (hessian @ torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
        [0.25, -0.25]
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Data,
        *,
        params: Track = "all",
        kind: str = "hessian",
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        keep: int = 2**30,
    ) -> None:
        check_choice("kind", kind, KINDS)
        check_integer("keep", keep, 0)
        check_weights(model)
        self.names: tuple[str, ...] = tuple(param_groups(model, params)[0]["param_names"])
        self.device = resolve_device(device, model)
        own = dict(model.named_parameters())
        self.dtype = dtype or own[self.names[0]].dtype
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be float32 or float64, got {self.dtype}")
        self.model = copy.deepcopy(model).to(self.device, self.dtype).eval().requires_grad_(False)
        tracked = dict(self.model.named_parameters())
        self.params = [tracked[name].requires_grad_() for name in self.names]
        self.size = sum(param.numel() for param in self.params)
        self.loss, self.kind = loss, kind
        self._samples = Samples(data, self.device, self.dtype)
        self._left = keep
        self._kept: list[tuple[float, _Product]] = []
        self._complete = False  # True once every batch is kept

    def pieces(self, vector: Tensor) -> list[Tensor]:
        """Return views of a vector (size,), one per weight and in its shape.

        Raises:
            ValueError: a vector of another shape or dtype.
        """
        if vector.shape != (self.size,) or vector.dtype != self.dtype:
            raise ValueError(
                f"a vector must be ({self.size},) of {self.dtype}, got {tuple(vector.shape)} "
                f"of {vector.dtype}"
            )
        parts = torch.split(vector, [param.numel() for param in self.params])
        return [part.view(p.shape) for part, p in zip(parts, self.params, strict=True)]

    def flat(self, model: nn.Module) -> Tensor:
        """Return the tracked weights of a model of the same architecture: (size,), on the device.

        Raises:
            ValueError: the model lacks one of these weights.
        """
        own = dict(model.named_parameters())
        for name, param in zip(self.names, self.params, strict=True):
            if name not in own or own[name].shape != param.shape:
                raise ValueError(f"the model has no {name} of shape {tuple(param.shape)}")
        parts = [own[name].detach().reshape(-1) for name in self.names]
        return torch.cat([part.to(self.device, self.dtype) for part in parts])

    def __matmul__(self, vector: Tensor) -> Tensor:
        """Return the product with a vector (size,)."""
        given = self.pieces(vector.to(self.device))
        result = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        sums = self.pieces(result)
        with _second_order():
            for weight, product in self._products():
                with _derivative_errors():
                    parts = product(given)
                for total, part in zip(sums, parts, strict=True):
                    total.add_(part.detach(), alpha=weight)
        return result

    def value_and_gradient(self) -> tuple[float, Tensor]:
        """Return the loss and its gradient (size,) at the model's weights."""
        value, result = 0.0, torch.zeros(self.size, dtype=self.dtype, device=self.device)
        sums = self.pieces(result)
        with _second_order():
            for number, (weight, inputs, labels) in enumerate(self._samples):
                _, loss = self._forward(inputs, labels, number)
                value += weight * float(loss.detach())
                with _derivative_errors():
                    parts = torch.autograd.grad(loss, self.params, materialize_grads=True)
                for total, part in zip(sums, parts, strict=True):
                    total.add_(part, alpha=weight)
        return value, result

    def _products(self) -> Iterator[tuple[float, _Product]]:
        yield from self._kept
        if self._complete:
            return
        number = 0
        for number, (weight, inputs, labels) in enumerate(
            islice(self._samples, len(self._kept), None), start=len(self._kept)
        ):
            product, size = self._product(inputs, labels, number)
            # Only a prefix of the batches is kept: a later one would be counted twice.
            if size <= self._left and number == len(self._kept):
                self._left -= size
                self._kept.append((weight, product))
            else:
                self._left = 0
            yield weight, product
        self._complete = number + 1 == len(self._kept)

    def _forward(self, inputs: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
        scores = class_scores(self.model, inputs)
        loss = self.loss(scores, labels)
        if not isinstance(loss, Tensor) or loss.ndim:
            raise ValueError("the loss must be a 0-dim tensor, the mean over the batch")
        if not bool(loss.isfinite()):
            raise ValueError(f"the loss is NaN or inf in batch {number + 1} of the data")
        return scores, loss

    def _product(self, inputs: Tensor, labels: Tensor, number: int) -> tuple[_Product, int]:
        """Return the product of one batch and the bytes that its graph holds."""
        storages: dict[int, int] = {}

        def pack(saved: Tensor) -> tuple[Tensor, int]:
            storage = saved.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return saved, saved._version

        def unpack(noted: tuple[Tensor, int]) -> Tensor:
            # With a hook autograd no longer looks whether a tensor is what it was.
            if noted[0]._version != noted[1]:
                raise RuntimeError("a tensor it needs was changed by an in-place operation")
            return noted[0]

        with saved_tensors_hooks(pack, unpack):
            scores, loss = self._forward(inputs, labels, number)
            with _derivative_errors():
                if self.kind == "hessian":
                    product = _hessian_product(loss, self.params)
                else:
                    product = _gauss_newton_product(scores, labels, self.loss, self.params)
        return product, sum(storages.values())
