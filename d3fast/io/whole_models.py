# SPDX-License-Identifier: Apache-2.0
"""Weights of a whole model that ``torch.save(model)`` wrote, read as data.

Such a pickle holds one object per module, and the state of each is a dictionary with
``_parameters``, ``_buffers`` and ``_modules``. ``d3fast.io.torch_files`` makes no object of it;
this module turns the dictionaries into weights by their dotted names. Only models of which every
part is of a known library are read: what other classes compute, a reader cannot know.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.pickles import Inert

# Packages whose modules consist of parameters, buffers and submodules alone.
LIBRARIES = ("torch.nn.modules.", "torchvision.models.", "torchvision.ops.", "timm.", "d3fast.")
_MAX_MODULES, _MAX_DEPTH, _MAX_PREFIX = 20_000, 64, 1000
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")

# Objects of classes and their states, by identity of the object.
States: TypeAlias = Mapping[int, tuple[Inert, Mapping[str, Any]]]


def is_module_state(state: Any) -> bool:
    """Return whether a state is that of a ``torch.nn.Module``."""
    return isinstance(state, dict) and all(
        isinstance(state.get(key), dict) for key in ("_parameters", "_buffers", "_modules")
    )


def whole_model(held: Any, states: States) -> Any:
    """Return the weights of a whole model under ``"model"``; anything else as it is.

    Args:
        held: what a pickle holds.
        states: of the modules in it.

    Returns:
        ``{"model": weights by name, "whole model": held}`` if ``held`` is a module and every part
        of it is of a class of ``LIBRARIES``, without hooks.

    Raises:
        ValueError: modules that are nested without end.
    """
    if not isinstance(held, Inert) or id(held) not in states:
        return held
    modules = list(_modules(held, states))
    if not all(item.name.startswith(LIBRARIES) and _is_plain(state) for _, item, state in modules):
        return held
    weights = {
        f"{prefix}{name}": value
        for prefix, _, state in modules
        for part in ("_parameters", "_buffers")
        for name, value in state[part].items()
        if isinstance(value, TensorEntry | OtherEntry)
    }
    return {"model": weights, "whole model": held}


def _is_plain(state: Mapping[str, Any]) -> bool:
    """Return whether a module has neither hooks nor a ``forward`` of its own."""
    return "forward" not in state and not any(state.get(hooks) for hooks in _HOOKS)


def _modules(root: Inert, states: States) -> Iterator[tuple[str, Inert, Mapping[str, Any]]]:
    """Yield prefix, object and state of every module; a part without a state has an empty one."""
    left: list[tuple[str, Any, int]] = [("", root, 0)]
    count = 0
    while left:
        prefix, item, depth = left.pop()
        count += 1
        if count > _MAX_MODULES or depth > _MAX_DEPTH or len(prefix) > _MAX_PREFIX:
            raise ValueError("its modules are nested without end")
        if not isinstance(item, Inert) or id(item) not in states:
            raise ValueError(f"its module '{prefix[:80]}' is no module")
        state = states[id(item)][1]
        yield prefix, item, state
        inner = [
            (f"{prefix}{n}.", part, depth + 1) for n, part in state["_modules"].items() if part
        ]
        left += reversed(inner)
