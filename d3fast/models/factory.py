# SPDX-License-Identifier: Apache-2.0
"""``make_model``: build a model from a name of the registry or ``package.module:factory``.

Importing the module and calling the factory run the user's own code. Weights of a suspect are
untrusted: see ``d3fast.io.checkpoints``.
"""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from d3fast.models.registry import MODELS
from d3fast.runtime.checks import check_integer
from d3fast.runtime.plugins import first_line, import_object, is_spec


def _arguments(
    spec: str, factory: Callable[..., Any], num_classes: int, in_channels: int
) -> tuple[tuple[int, ...], dict[str, int]]:
    """Return the arguments to call the factory with."""
    given = {"num_classes": num_classes, "in_channels": in_channels}
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # written in C: no signature
        return (num_classes, in_channels), {}
    by_name = {
        p.name: given[p.name]
        for p in parameters
        if p.name in given and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        by_name["num_classes"] = num_classes
    needed = [
        p
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if all(p.name in by_name for p in needed):
        return (), by_name
    if len(needed) == 2 and not any(p.kind is p.KEYWORD_ONLY for p in needed):
        return (num_classes, in_channels), {}
    names = ", ".join(p.name for p in needed)
    raise ValueError(
        f"model {spec!r}: the factory must need (num_classes, in_channels) or nothing, "
        f"it needs ({names})"
    )


def make_model(spec: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a model from a name or a factory.

    Args:
        spec: a name of ``MODELS``, or ``"package.module:factory"``. The module is imported along
            ``sys.path``. The factory, any callable, receives those of ``num_classes`` and
            ``in_channels`` that it has parameters for (``num_classes`` also through ``**kwargs``,
            as in torchvision). Two required parameters of other names receive both in this order;
            a factory without required parameters is called without arguments.
        num_classes: number of classes.
        in_channels: channels of the images.

    Returns:
        The model as the factory returned it.

    Raises:
        ValueError: an unknown name; a module or attribute that is missing or raises; a factory
            that needs other arguments, raises, or does not return a module.

    Example:
        >>> type(make_model("vit_tiny", 10, 1)).__name__
        'VisionTransformer'
        >>> type(make_model("d3fast.models:PreActResNet", 10, 1)).__name__
        'PreActResNet'
        >>> make_model("resnet", 10, 1)
        Traceback (most recent call last):
            ...
        ValueError: model must be one of 'preact_resnet_tiny', 'preact_resnet_narrow', \
'preact_resnet18', 'vgg19_bn', 'vit_tiny', 'vit_b_16', or 'package.module:factory', got 'resnet'
    """
    check_integer("num_classes", num_classes, 1)
    check_integer("in_channels", in_channels, 1)
    if spec in MODELS:
        return MODELS[spec](num_classes, in_channels)
    if not is_spec(spec):
        choices = ", ".join(map(repr, MODELS))
        raise ValueError(
            f"model must be one of {choices}, or 'package.module:factory', got {spec!r}"
        )
    factory = import_object("model", spec)
    if not callable(factory):
        raise ValueError(
            f"model {spec!r}: a factory must be callable, got a {type(factory).__name__}"
        )
    args, kwargs = _arguments(spec, factory, num_classes, in_channels)
    try:
        model = factory(*args, **kwargs)
    except Exception as error:
        raise ValueError(f"model {spec!r}: calling it raised {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model {spec!r}: the factory must return a torch.nn.Module, "
            f"got a {type(model).__name__}"
        )
    return model
