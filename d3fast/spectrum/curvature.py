# SPDX-License-Identifier: Apache-2.0
r"""The curvature of a loss as a matrix that is never written down: it multiplies vectors.

    Hessian        H v = d/dtheta <dL/dtheta, v>                           (Pearlmutter 1994)
    Gauss-Newton   G v = J^T (d^2 loss / df^2) J v,   J = df/dtheta        (Schraudolph 2002)

L is the exact mean over a data set, see ``Samples``; theta is all weights of a model or some of
them, as one flat vector. Both products are reverse-mode twice. The first of the two passes is the
same for every vector, so its graph is kept for as many batches as a budget allows; the others are
streamed and computed anew for every product.
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
# Products of one batch: from pieces of a vector, one per weight, to pieces of the product.
_Product = Callable[[Sequence[Tensor]], Sequence[Tensor]]


class Symmetric(Protocol):
    """A real symmetric matrix of which only products with vectors are known."""

    @property
    def size(self) -> int:
        """Number of rows."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its vectors."""

    @property
    def device(self) -> torch.device:
        """Where its vectors are."""

    def __matmul__(self, vector: Tensor) -> Tensor:
        """The product with a vector (size,), a new tensor."""


@contextmanager
def _second_order() -> Iterator[None]:
    """Attention by formulas that have a second derivative."""
    with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        yield


@contextmanager
def _one_line() -> Iterator[None]:
    """What autograd says of a loss without a second derivative, as one clear error."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, NotImplementedError) as error:
        said = str(error).split("\n")[0].rstrip(".")
        raise ValueError(f"the loss cannot be differentiated twice: {said}") from error


def _check_twice(gradient: Sequence[Tensor]) -> None:
    """Look for what autograd would pass over in silence.

    A function that says it can be differentiated once leaves a node that raises, but that node
    leads to no weight, so that it is never asked.
    """
    seen, left = set(), [part.grad_fn for part in gradient if part.grad_fn is not None]
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        if "Error" in node.name():
            raise ValueError(
                "the loss cannot be differentiated twice: a function in it is once_differentiable"
            )
        left += [following for following, _ in node.next_functions if following is not None]


def _hessian_product(loss: Tensor, params: Sequence[Tensor]) -> _Product:
    gradient = torch.autograd.grad(loss, params, create_graph=True, materialize_grads=True)
    _check_twice(gradient)
    moving = [i for i, part in enumerate(gradient) if part.requires_grad]
    if not moving:
        raise ValueError(
            "the loss cannot be differentiated twice: its gradient is the same for all weights"
        )

    def product(pieces: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.autograd.grad(
            [gradient[i] for i in moving],
            params,
            [pieces[i] for i in moving],
            retain_graph=True,
            materialize_grads=True,
        )

    return product


def _gauss_newton_product(
    scores: Tensor, labels: Tensor, loss: Loss, params: Sequence[Tensor]
) -> _Product:
    # J^T u is linear in u: its derivative by u, held against v, is J v.
    dual = torch.zeros_like(scores, requires_grad=True)
    pulled = torch.autograd.grad(scores, params, dual, create_graph=True, materialize_grads=True)
    _check_twice(pulled)
    moving = [i for i, part in enumerate(pulled) if part.requires_grad]
    free = scores.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(free, labels), free, create_graph=True)
    if not slope.requires_grad:
        raise ValueError("the loss cannot be differentiated twice by the scores")

    def product(pieces: Sequence[Tensor]) -> Sequence[Tensor]:
        (pushed,) = torch.autograd.grad(
            [pulled[i] for i in moving], dual, [pieces[i] for i in moving], retain_graph=True
        )
        (bent,) = torch.autograd.grad(slope, free, pushed, retain_graph=True)
        return torch.autograd.grad(scores, params, bent, retain_graph=True, materialize_grads=True)

    return product


class Curvature:
    """Hessian or Gauss-Newton matrix of a model's mean loss over a data set.

    Args:
        model: gives (N, classes) scores. A copy is used, in eval mode: batch norm normalises by
            its running statistics, dropout is off.
        loss: (scores, labels) to the mean over the batch, 0-dim; twice differentiable.
        data: yields (inputs, labels), the same in every pass; or a ``Difference`` of two such.
        params: which weights, by the rules of ``d3fast.param_groups``: ``"all"``, ``"head"``,
            ``"linear"``, ``"conv+linear"``, a regular expression, a callable. The others are
            constants.
        kind: ``"hessian"``, or ``"gauss-newton"`` (positive semi-definite for a convex loss).
        dtype: ``torch.float64`` or ``torch.float32``; the model's own if ``None``.
        device: where to compute; where the model is if ``None``.
        keep: bytes of graphs to keep between products, about. 0 keeps none: least memory, and
            half as many products per second.

    Raises:
        ValueError: an option that is none; no weight selected; NaN or inf in weights or loss;
            data that ``Samples`` refuses; a loss that cannot be differentiated twice (when the
            first product is asked for).

    Shapes: a product takes and gives (size,), the weights one after the other in the order of
    ``names``.

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
        self._complete = False  # whether every batch is kept

    def pieces(self, vector: Tensor) -> list[Tensor]:
        """Views of a vector (size,), one per weight and of its shape.

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
        """The tracked weights of a model of the same kind, (size,), on the device.

        Raises:
            ValueError: a model without these weights.
        """
        own = dict(model.named_parameters())
        for name, param in zip(self.names, self.params, strict=True):
            if name not in own or own[name].shape != param.shape:
                raise ValueError(f"the model has no {name} of shape {tuple(param.shape)}")
        parts = [own[name].detach().reshape(-1) for name in self.names]
        return torch.cat([part.to(self.device, self.dtype) for part in parts])

    def __matmul__(self, vector: Tensor) -> Tensor:
        """The product with a vector (size,)."""
        given = self.pieces(vector.to(self.device))
        result = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        sums = self.pieces(result)
        with _second_order():
            for weight, product in self._products():
                with _one_line():
                    parts = product(given)
                for total, part in zip(sums, parts, strict=True):
                    total.add_(part.detach(), alpha=weight)
        return result

    def value_and_gradient(self) -> tuple[float, Tensor]:
        """The loss and its gradient (size,) at the model's weights."""
        value, result = 0.0, torch.zeros(self.size, dtype=self.dtype, device=self.device)
        sums = self.pieces(result)
        with _second_order():
            for number, (weight, inputs, labels) in enumerate(self._samples):
                _, loss = self._forward(inputs, labels, number)
                value += weight * float(loss.detach())
                with _one_line():
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
            # In order, without gaps: a batch after one that was too large would be counted twice.
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
        """The product of one batch, and the bytes that its graph holds."""
        storages: dict[int, int] = {}

        def note(saved: Tensor) -> tuple[Tensor, int]:
            storage = saved.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return saved, saved._version

        def give(noted: tuple[Tensor, int]) -> Tensor:
            # With a hook autograd no longer looks whether a tensor is what it was.
            if noted[0]._version != noted[1]:
                raise RuntimeError("a tensor it needs was changed by an in-place operation")
            return noted[0]

        with saved_tensors_hooks(note, give):
            scores, loss = self._forward(inputs, labels, number)
            with _one_line():
                if self.kind == "hessian":
                    product = _hessian_product(loss, self.params)
                else:
                    product = _gauss_newton_product(scores, labels, self.loss, self.params)
        return product, sum(storages.values())
