# SPDX-License-Identifier: Apache-2.0
"""Fill a model with weights from a file that is not trusted.

Safetensors cannot run code when it is read. A ``.pt`` file is a pickle: torch's restricted
unpickler reads tensors from it and refuses everything else. What came out is compared with the
model, name by name, before a single weight is overwritten.
"""

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
# What training scripts call the weights within a checkpoint, and what wrappers put before names.
_NESTED = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")
_REFUSED = re.compile(r"[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) ([\w.]+)")


def _listed(names: Iterable[str], most: int = 3) -> str:
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(map(repr, found[:most])) + more


def _unreadable(path: Path, error: Exception) -> ValueError:
    if isinstance(error, pickle.UnpicklingError):
        refused = _REFUSED.search(str(error))
        if refused:
            return ValueError(
                f"{path} holds more than tensors (it asks for {refused[1]}), which can run code: "
                "refused. Read it in a sandbox, and from there take "
                "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
            )
    # The restricted unpickler puts a page of advice before what it found.
    found = str(error).partition("WeightsUnpickler error:")
    lines = (found[2] or found[0]).strip().splitlines()
    detail = f": {lines[0].strip()[:120]}" if lines else ""
    return ValueError(f"{path} is damaged or no file of weights ({type(error).__name__}{detail})")


def _read(path: Path) -> Any:
    """What the file holds. Whatever a damaged file brings a reader to raise is a ``ValueError``."""
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *_PICKLES):
        known = ", ".join((".safetensors", *_PICKLES))
        raise ValueError(f"weights must be in a file ending in {known}, got {path}")
    with path.open("rb"):
        pass  # a file that is not there or may not be read says so itself
    try:
        if suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(path, error) from None


def _named_tensors(held: Any, path: Path) -> dict[str, Tensor]:
    """The weights themselves, out of what training scripts put around them."""
    for _ in _NESTED:  # a file may nest them without end
        if not isinstance(held, Mapping):
            break
        inner = next((held[n] for n in _NESTED if isinstance(held.get(n), Mapping)), None)
        if inner is None:
            break
        held = inner
    if not isinstance(held, Mapping):
        raise ValueError(f"{path} must hold weights by name, it holds a {type(held).__name__}")
    for name, value in held.items():
        if not isinstance(name, str):
            raise ValueError(f"{path} must hold weights by name, it has the key {name!r:.40}")
        if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided:
            raise ValueError(f"{path}: {name!r} must be a dense tensor, it is {_kind(value)}")
    return dict(held)


def _kind(value: Any) -> str:
    layout = f" of {value.layout}" if isinstance(value, Tensor) else ""
    return f"a {type(value).__name__}{layout}"


def _without_prefix(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what ``DataParallel`` or ``torch.compile`` put before every one of them."""

    def shared(names: Iterable[str]) -> str | None:
        listed = list(names)
        return next((p for p in _PREFIXES if all(n.startswith(p) for n in listed)), None)

    while given:
        prefix = shared(given)
        if prefix is None or shared(own) == prefix:
            break
        given = {name.removeprefix(prefix): value for name, value in given.items()}
    return given


def _same_memory(tensor: Tensor) -> tuple[Any, ...]:
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())


def _complete(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add what a file may leave out: a tied weight's other names, and counts of batch norm."""
    by_memory = {_same_memory(own[n]): n for n in own if n in given and own[n].data_ptr()}
    whole = dict(given)
    for name in own.keys() - given.keys():
        twin = by_memory.get(_same_memory(own[name]))
        if twin is not None:
            whole[name] = given[twin]
        elif name.endswith("num_batches_tracked"):  # not there before torch 0.4.1
            whole[name] = own[name]
    return whole


def _fits(given: torch.dtype, own: torch.dtype) -> bool:
    """Whether every value of one dtype is one of the other, of the same kind of number."""
    if given == own:
        return True
    kinds = [(d.is_floating_point, d.is_complex, d == torch.bool) for d in (given, own)]
    try:
        return kinds[0] == kinds[1] and torch.promote_types(given, own) == own
    except RuntimeError:  # 8-bit floats
        return False


def _check(given: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    lacks, extra = own.keys() - given.keys(), given.keys() - own.keys()
    if lacks or extra:
        parts = [f"it lacks {_listed(lacks)}"] if lacks else []
        parts += [f"the model has no {_listed(extra)}"] if extra else []
        raise ValueError(f"{path} does not fit the model: {'; '.join(parts)}")
    twins: dict[tuple[Any, ...], str] = {}
    for name, value in given.items():
        target = own[name]
        if value.shape != target.shape:
            raise ValueError(
                f"{path} does not fit the model: {name!r} has shape {tuple(value.shape)}, "
                f"the model's {tuple(target.shape)}"
            )
        if not _fits(value.dtype, target.dtype) or value.is_meta:
            raise ValueError(
                f"{path} does not fit the model: {name!r} is "
                f"{'empty' if value.is_meta else value.dtype}, the model's {target.dtype}"
            )
        if not bool(value.isfinite().all()):
            raise ValueError(f"{path}: {name!r} holds NaN or inf")
        twin = twins.setdefault(_same_memory(target), name) if target.data_ptr() else name
        if not torch.equal(given[twin], value):
            raise ValueError(
                f"{path} does not fit the model: {twin!r} and {name!r} differ, in the model they "
                "are one"
            )


@torch.no_grad()
def load_weights(model: nn.Module, path: str | Path) -> None:
    """Overwrite a model's weights and buffers by those of a file, all of them or none.

    A ``.safetensors`` file, or one that ``torch.save`` wrote (``.pt``, ``.pth``, ``.bin``,
    ``.ckpt``, ``.tar``). The weights may be under ``state_dict``, ``model_state_dict``, ``model``
    or ``net`` and all have a prefix ``module.`` or ``_orig_mod.``. A narrower dtype of the same
    kind is widened. No code from the file is run.

    Args:
        model: the model; stays where it is, in its dtypes.
        path: the file.

    Raises:
        ValueError: a damaged file; one that holds anything but tensors; names, shapes or dtypes
            that do not fit; NaN or inf. The model is then as it was before.
        OSError: the file is not there or cannot be read.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> model = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "weights.safetensors")
        ...     save_file({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, file)
        ...     load_weights(model, file)
        >>> model.weight.tolist()
        [[1.0, 1.0]]
    """
    path = Path(path)
    state = model.state_dict()
    lazy = [name for name, value in state.items() if is_lazy(value)]
    if lazy:
        raise ValueError(f"{lazy[0]!r} has no shape yet: run the model on a batch first")
    own = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    given = _complete(_without_prefix(_named_tensors(_read(path), path), own), own)
    _check(given, own, path)
    for name, value in given.items():
        own[name].copy_(value)
