# SPDX-License-Identifier: Apache-2.0
"""``make_model``: build a model from a name of the registry or ``package.module:factory``.

Importing the module and calling the factory run the user's own code. Weights of a suspect are
untrusted: see ``d3fast.io.checkpoints``.
"""

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from d3fast.models.registry import MODELS
from d3fast.runtime.checks import check_integer

_SPEC = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")


def _is_missing(module: str, error: ImportError) -> bool:
    """Return whether the module itself, or a package that contains it, is missing."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing is not None and (module == missing or module.startswith(f"{missing}."))


def _imported(spec: str) -> Any:
    """Import the object that ``package.module:name`` names."""
    module, _, name = spec.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ImportError) and _is_missing(module, error):
            raise ValueError(
                f"model {spec!r}: there is no module {error.name!r} in the folders of sys.path"
            ) from None
        raise ValueError(
            f"model {spec!r}: importing {module} raised {_first_line(error)}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"model {spec!r}: {module} has no {name!r}")
        found = getattr(found, part)
    return found


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
    if not isinstance(spec, str) or not _SPEC.fullmatch(spec):
        choices = ", ".join(map(repr, MODELS))
        raise ValueError(
            f"model must be one of {choices}, or 'package.module:factory', got {spec!r}"
        )
    factory = _imported(spec)
    if not callable(factory):
        raise ValueError(
            f"model {spec!r}: a factory must be callable, got a {type(factory).__name__}"
        )
    args, kwargs = _arguments(spec, factory, num_classes, in_channels)
    try:
        model = factory(*args, **kwargs)
    except Exception as error:
        raise ValueError(f"model {spec!r}: calling it raised {_first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model {spec!r}: the factory must return a torch.nn.Module, "
            f"got a {type(model).__name__}"
        )
    return model
