# SPDX-License-Identifier: Apache-2.0
r"""Distance of every layer from its start, at the end of a run or after every epoch.

distance = ||theta_l - theta_0,l||_2,      relative = distance / ||theta_0,l||_2
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.optim.groups import Track, param_groups
from d3fast.training.loop import Epoch


def _json_number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class LayerDistance:
    """Distance of one parameter from its start.

    Attributes:
        name: name of the parameter.
        numel: number of elements.
        distance: 2-norm of the displacement.
        norm: 2-norm of the start.

    Example:
        >>> LayerDistance("head.weight", 4, distance=1.0, norm=2.0).relative
        0.5
    """

    name: str
    numel: int
    distance: float
    norm: float

    @property
    def relative(self) -> float | None:
        """Distance divided by the norm of the start; ``None`` if that is 0."""
        return self.distance / self.norm if self.norm else None

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; numbers that are not finite become ``None``."""
        numbers = {name: getattr(self, name) for name in ("distance", "norm", "relative")}
        return {**asdict(self), **{name: _json_number(value) for name, value in numbers.items()}}


LayerDistances = tuple[LayerDistance, ...]


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: param.shape for name, param in model.named_parameters()}


def _check_shapes(start: dict[str, torch.Size], model: nn.Module) -> None:
    own = _shapes(model)
    for name, shape in start.items():
        if own.get(name) != shape:
            raise ValueError(f"the model has no {name} of shape {tuple(shape)}")
    for name in own:
        if name not in start:
            raise ValueError(f"the model has a parameter {name} that the start lacks")


def _distances(start: dict[str, Tensor], model: nn.Module) -> LayerDistances:
    own = dict(model.named_parameters())
    rows = []
    for name, origin in start.items():
        weight = own[name].detach().to(origin.device, origin.dtype)
        rows.append(torch.stack([_norm(weight - origin), _norm(origin)]).cpu())
    return tuple(
        LayerDistance(name, origin.numel(), *row.tolist())
        for (name, origin), row in zip(start.items(), rows, strict=True)
    )


def _tracked(model: nn.Module, track: Track) -> dict[str, Tensor]:
    own = dict(model.named_parameters())
    names = param_groups(model, track)[0]["param_names"]
    return {name: own[name].detach() for name in names}


def distance_profile(start: nn.Module, model: nn.Module, track: Track = "all") -> LayerDistances:
    """Compute the distance of every trainable parameter from its start.

    Args:
        start: theta_0.
        model: theta, of the same architecture.
        track: which parameters, by the rules of ``d3fast.param_groups``; parameters frozen in
            ``start`` are left out.

    Returns:
        One record per parameter, in the order of the model.

    Raises:
        ValueError: a parameter is missing in one model or has another shape; see also
            ``param_groups``.

    Example:
        >>> start, end = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(start.weight, 2.0), nn.init.constant_(end.weight, 5.0)
        >>> distance_profile(start, end)
        (LayerDistance(name='weight', numel=1, distance=3.0, norm=2.0),)
    """
    _check_shapes(_shapes(start), model)
    return _distances(_tracked(start, track), model)


def total_distance(profile: Sequence[LayerDistance]) -> LayerDistance:
    """Return the distance of all layers as one vector, under the name ``"all"``.

    Example:
        >>> parts = LayerDistance("a", 1, 3.0, 6.0), LayerDistance("b", 2, 4.0, 8.0)
        >>> total_distance(parts)
        LayerDistance(name='all', numel=3, distance=5.0, norm=10.0)
    """
    distance = sum(layer.distance**2 for layer in profile) ** 0.5
    norm = sum(layer.norm**2 for layer in profile) ** 0.5
    return LayerDistance("all", sum(layer.numel for layer in profile), distance, norm)


class DistanceRecorder:
    """Recorder of the layer distances after every epoch; an ``on_epoch`` of a defence.

    Args:
        start: theta_0; its weights are copied.
        track: which parameters, by the rules of ``d3fast.param_groups``.

    Attributes:
        epochs: numbers of the recorded epochs.
        profiles: layer distances, one tuple per epoch.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> recorder = DistanceRecorder(model)
        >>> recorder(Epoch(epoch=1, loss=0.1, accuracy=1.0, lr=0.1), model)
        >>> recorder.epochs, recorder.profiles[0][0].distance
        ([1], 0.0)
    """

    def __init__(self, start: nn.Module, track: Track = "all") -> None:
        self._shapes = _shapes(start)
        self._start = {name: value.clone() for name, value in _tracked(start, track).items()}
        self.epochs: list[int] = []
        self.profiles: list[LayerDistances] = []

    def __call__(self, epoch: Epoch, model: nn.Module) -> None:
        """Record one epoch; raise ``ValueError`` for a model of another architecture."""
        _check_shapes(self._shapes, model)
        self.epochs.append(epoch.epoch)
        self.profiles.append(_distances(self._start, model))

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON: epochs, and distances per parameter and epoch."""
        profiles = self.profiles
        layers = {
            layer.name: {
                "distance": [_json_number(profile[i].distance) for profile in profiles],
                "relative": [_json_number(profile[i].relative) for profile in profiles],
            }
            for i, layer in enumerate(profiles[0] if profiles else ())
        }
        return {"epochs": list(self.epochs), "layers": layers}
