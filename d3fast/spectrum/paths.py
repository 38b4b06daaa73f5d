# SPDX-License-Identifier: Apache-2.0
r"""Loss along the line through two models, and over the plane through three.

    theta(t) = theta_0 + t (theta_1 - theta_0)                            loss_path
    theta(a, b) = theta_0 + a (theta_1 - theta_0) + b (theta_2 - theta_0)  loss_plane

Weights are extrapolated without bounds. Floating buffers, such as the running statistics of batch
norm, stay convex combinations (shares clipped to >= 0 and scaled to a sum <= 1), because an
extrapolated variance may become negative. Integer buffers are those of theta_0. At the position of
each model the path or plane gives exactly that model.
"""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.spectrum.samples import Difference, Loss, Samples, triggered_batches
from d3fast.training.loaders import class_scores, unpack
from d3fast.training.loop import check_weights
from d3fast.training.metrics import Trigger, evaluate

TS = tuple(step / 20 for step in range(41))  # 0 to 2; both models are among the points
STEPS = tuple(step / 10 for step in range(-5, 16))


@dataclass(frozen=True)
class PathPoint:
    """One point of a path or plane.

    Attributes:
        at: (t,), or (a, b).
        clean_loss: mean loss on the clean samples; inf if it is not finite.
        acc: accuracy on the clean samples, a fraction. All rates are ``None`` if the model returns
            NaN scores.
        backdoor_loss: mean loss on triggered samples with target labels; ``None`` without an
            attack, like ``asr`` and ``ra``.
        asr: attack success rate on the same samples.
        ra: robust accuracy on the same samples.

    Example:
        >>> PathPoint((2.0,), math.inf, acc=0.1).as_dict()["clean_loss"] is None
        True
    """

    at: tuple[float, ...]
    clean_loss: float
    acc: float | None
    backdoor_loss: float | None = None
    asr: float | None = None
    ra: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; a loss that is not finite becomes ``None``."""
        values = asdict(self)
        for name in ("clean_loss", "backdoor_loss"):
            value = values[name]
            values[name] = value if value is not None and math.isfinite(value) else None
        return values


@dataclass(frozen=True)
class LossPath:
    """Losses along a line.

    Attributes:
        points: one per t, in the requested order.

    Example:
        >>> line = [PathPoint((t,), loss, acc=1.0) for t, loss in ((0.0, 1), (0.5, 3), (1.0, 2))]
        >>> LossPath(tuple(line)).barrier
        1.5
    """

    points: tuple[PathPoint, ...]

    @property
    def barrier(self) -> float | None:
        """Loss barrier: the largest rise of the clean loss above the chord, for 0 <= t <= 1.

        ``max_t L(theta(t)) - (1 - t) L(theta_0) - t L(theta_1)``; ``None`` if the loss at an end
        is not measured or not finite. Source: Frankle, Dziugaite, Roy, Carbin, ICML 2020,
        section 2.
        """
        loss = {point.at[0]: point.clean_loss for point in self.points}
        if not all(math.isfinite(loss.get(end, math.inf)) for end in (0, 1)):
            return None
        return max(loss[t] - (1 - t) * loss[0] - t * loss[1] for t in loss if 0 <= t <= 1)

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        barrier = self.barrier
        known = barrier is not None and math.isfinite(barrier)
        points = [point.as_dict() for point in self.points]
        return {"points": points, "barrier": barrier if known else None}


@dataclass(frozen=True)
class LossPlane:
    """Losses over a plane.

    Attributes:
        first_steps: values of a.
        second_steps: values of b.
        points: one per (a, b); b varies fastest.

    Example:
        >>> row = tuple(PathPoint((0.0, b), loss, acc=1.0) for b, loss in ((0.0, 1), (1.0, 3)))
        >>> LossPlane((0.0,), (0.0, 1.0), row).grid("clean_loss").tolist()
        [[1.0, 3.0]]
    """

    first_steps: tuple[float, ...]
    second_steps: tuple[float, ...]
    points: tuple[PathPoint, ...]

    def grid(self, name: str) -> Tensor:
        """Return an attribute of ``PathPoint`` as (a, b) float64, with NaN for ``None``."""
        values = [getattr(point, name) for point in self.points]
        flat = torch.tensor([math.nan if v is None else v for v in values], dtype=torch.float64)
        return flat.view(len(self.first_steps), len(self.second_steps))

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        return {
            "first_steps": list(self.first_steps),
            "second_steps": list(self.second_steps),
            "points": [point.as_dict() for point in self.points],
        }


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; a tied tensor under each of its names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _first_names(tensors: dict[str, Tensor]) -> dict[str, str]:
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}


def check_same_architecture(first: nn.Module, second: nn.Module) -> None:
    """Raise ``ValueError``, naming the tensor, if names, shapes, dtypes or ties differ.

    Example:
        >>> check_same_architecture(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
        Traceback (most recent call last):
            ...
        ValueError: the models differ: bias is in one of them alone
    """
    ours, theirs = _tensors(first), _tensors(second)
    for name in dict.fromkeys((*ours, *theirs)):
        a, b = ours.get(name), theirs.get(name)
        if a is None or b is None:
            raise ValueError(f"the models differ: {name} is in one of them alone")
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(
                f"the models differ: {name} is {tuple(a.shape)} of {a.dtype} in one, "
                f"{tuple(b.shape)} of {b.dtype} in the other"
            )
    our_ties, their_ties = _first_names(ours), _first_names(theirs)
    for name in ours:
        if our_ties[name] != their_ties[name]:
            raise ValueError(f"the models differ: {name} is tied in one of them alone")


class _Interpolation:
    """Model whose tensors can be set to any point of the line or plane through other models."""

    def __init__(self, origin: nn.Module, ends: Sequence[nn.Module], device: torch.device) -> None:
        for model in (origin, *ends):
            check_weights(model)
            check_same_architecture(origin, model)
        self.model = copy.deepcopy(origin).to(device).eval().requires_grad_(False)
        self._weights = {id(p) for p in self.model.parameters()}
        end_tensors = [_tensors(end) for end in ends]
        # Keyed by identity: a tied weight has two names and is set once.
        self._values = {
            id(own): (own, [own.clone(), *(end[name].detach().to(device) for end in end_tensors)])
            for name, own in _tensors(self.model).items()
        }

    @torch.no_grad()
    def at(self, shares: Sequence[float]) -> nn.Module:
        """Set the model to origin + sum of shares times (end - origin) and return it."""
        convex = [max(share, 0.0) for share in shares]
        convex = [share / max(sum(convex), 1.0) for share in convex]
        for key, (own, values) in self._values.items():
            if not own.is_floating_point():
                own.copy_(values[0])
                continue
            rest = 1 - sum(shares) if key in self._weights else max(1 - sum(convex), 0.0)
            parts = (rest, *(shares if key in self._weights else convex))
            # A weighted sum instead of start + t * delta: it equals each model bit by bit.
            own.zero_()
            for part, value in zip(parts, values, strict=True):
                own.add_(value, alpha=part)
        return self.model


@torch.no_grad()
def _mean_loss(model: nn.Module, loss: Loss, samples: Samples) -> float:
    total = 0.0
    for weight, inputs, labels in samples:
        total += weight * float(loss(class_scores(model, inputs), labels))
    return total if math.isfinite(total) else math.inf


@dataclass(frozen=True)
class _PointEvaluation:
    """Evaluation of the losses and rates at one point."""

    loss: Loss
    data: Iterable[Any]
    attack: Trigger | None
    clean: Samples
    triggered: Samples | None

    def __call__(self, at: Sequence[float], model: nn.Module) -> PathPoint:
        # Rates first: they check the labels, and an invalid label in the loss would end a CUDA
        # process.
        acc, asr, ra = self._rates(model)
        clean_loss = _mean_loss(model, self.loss, self.clean)
        if self.triggered is None:
            return PathPoint(tuple(at), clean_loss, acc)
        backdoor_loss = _mean_loss(model, self.loss, self.triggered)
        return PathPoint(tuple(at), clean_loss, acc, backdoor_loss, asr, ra)

    def _rates(self, model: nn.Module) -> tuple[float | None, float | None, float | None]:
        try:
            metrics = evaluate(model, self.data, self.attack, name="data")
        except ValueError as error:
            # Extrapolated weights may overflow; the other points are still measured.
            if "NaN scores" not in str(error):
                raise
            return None, None, None
        return metrics.acc, metrics.asr, metrics.ra


def _measured(
    models: Sequence[nn.Module],
    positions: Sequence[tuple[float, ...]],
    loss: Loss,
    data: Iterable[Any],
    attack: Trigger | None,
    device: str | torch.device | None,
    progress: bool,
) -> tuple[PathPoint, ...]:
    if isinstance(data, Difference):
        raise ValueError("data of a path must yield (inputs, labels), got a Difference")
    for position in positions:
        if not all(math.isfinite(share) for share in position):
            raise ValueError(f"a point of a path must be finite, got {position}")
    device = resolve_device(device, models[0])
    interpolation = _Interpolation(models[0], models[1:], device)
    clean, triggered = Samples(data, device), None
    if attack is not None:
        inputs, _ = unpack(next(iter(data)), "data", device)
        with torch.no_grad():
            classes = class_scores(interpolation.model, inputs).shape[1]
        triggered = Samples(triggered_batches(data, attack, classes), device)
    evaluate_point = _PointEvaluation(loss, data, attack, clean, triggered)
    points = []
    with torch.no_grad(), progress_bar("loss path", len(positions), progress) as advance:
        for position in positions:
            points.append(evaluate_point(position, interpolation.at(position)))
            advance("")
    return tuple(points)


def loss_path(
    start: nn.Module,
    end: nn.Module,
    loss: Loss,
    data: Iterable[Any],
    attack: Trigger | None = None,
    *,
    ts: Sequence[float] = TS,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> LossPath:
    """Measure clean loss, backdoor loss, ACC and ASR on the line through two models.

    Args:
        start: theta_0, t = 0. Both models are evaluated in eval mode and not changed.
        end: theta_1, t = 1, of the same architecture.
        loss: (scores, labels) -> mean over the batch.
        data: yields clean (inputs, labels), the same in every pass.
        attack: any object with ``trigger(images)`` and ``target``, for backdoor loss and ASR.
        ts: positions to measure; 0 to 2 by default.
        device: where to compute; the device of ``start`` if ``None``.
        progress: show a progress bar.

    Returns:
        One point per t.

    Raises:
        ValueError: the architectures differ (the message names the tensor); NaN or inf in the
            weights or in ``ts``; see also ``Samples`` and ``evaluate``.

    Source: Goodfellow, Vinyals, Saxe, *Qualitatively characterizing neural network optimization
    problems*, ICLR 2015.

    Example:
        >>> models = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> data = [(torch.rand(8, 2), torch.arange(8) % 2)]
        >>> path = loss_path(*models, nn.CrossEntropyLoss(), data, ts=(0, 1, 2), progress=False)
        >>> [point.at for point in path.points]
        [(0.0,), (1.0,), (2.0,)]
    """
    positions = [(float(t),) for t in ts]
    return LossPath(_measured((start, end), positions, loss, data, attack, device, progress))


def loss_plane(
    origin: nn.Module,
    first: nn.Module,
    second: nn.Module,
    loss: Loss,
    data: Iterable[Any],
    attack: Trigger | None = None,
    *,
    first_steps: Sequence[float] = STEPS,
    second_steps: Sequence[float] = STEPS,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> LossPlane:
    """Measure the same losses and rates over the plane through three models; see ``loss_path``.

    Args:
        origin: theta_0, a = b = 0.
        first: theta_1, a = 1, b = 0.
        second: theta_2, a = 0, b = 1.
        loss: (scores, labels) -> mean over the batch.
        data: yields clean (inputs, labels), the same in every pass.
        attack: for backdoor loss and ASR.
        first_steps: values of a.
        second_steps: values of b.
        device: where to compute; the device of ``origin`` if ``None``.
        progress: show a progress bar.

    Returns:
        One point per pair.

    Raises:
        ValueError: see ``loss_path``.

    Source: Garipov, Izmailov, Podoprikhin, Vetrov, Wilson, *Loss surfaces, mode connectivity, and
    fast ensembling of DNNs*, NeurIPS 2018, for planes through three models.

    Example:
        >>> models = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        >>> data = [(torch.rand(8, 2), torch.arange(8) % 2)]
        >>> plane = loss_plane(*models, nn.CrossEntropyLoss(), data, first_steps=(0, 1, 2),
        ...                    second_steps=(0, 1), progress=False)
        >>> plane.grid("acc").shape
        torch.Size([3, 2])
    """
    rows, columns = tuple(map(float, first_steps)), tuple(map(float, second_steps))
    positions = [(a, b) for a in rows for b in columns]
    models = (origin, first, second)
    points = _measured(models, positions, loss, data, attack, device, progress)
    return LossPlane(rows, columns, points)
