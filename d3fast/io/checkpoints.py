# SPDX-License-Identifier: Apache-2.0
"""``load_weights``: fill a model with weights from an untrusted file.

``d3fast.io.weight_files`` lists what the file holds. Names, shapes and dtypes are compared with the
model before a tensor is read, so no more is read than the model has. All values are checked before
the first weight is overwritten, one tensor in memory at a time. ``d3fast.io.hub_files`` fills a
model from several files with the same checks.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.untrusted import error_text, printable
from d3fast.io.weight_files import open_weights

Entries = dict[str, TensorEntry]

# Keys under which training scripts store the weights, and prefixes that wrappers add to names.
_NESTED = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.")
# A training checkpoint holds a few copies of the weights; a sparse file may claim terabytes.
_MAX_COPIES = 100
_MAX_REST = 2**28


def _quoted(name: object) -> str:
    return f"'{printable(name, 100)}'"


def _listed(names: Iterable[str], most: int = 3) -> str:
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(map(_quoted, found[:most])) + more


def named_tensors(held: Any, path: Path) -> Entries:
    """Return the weights by name, without the dictionaries around them."""
    for _ in _NESTED:  # a file may nest them without end
        if not isinstance(held, Mapping):
            break
        inner = next((held[n] for n in _NESTED if isinstance(held.get(n), Mapping)), None)
        if inner is None:
            break
        held = inner
    shown = printable(path)
    if not isinstance(held, Mapping):
        raise ValueError(f"{shown} must hold weights by name, it holds {_kind(held)}")
    for name, value in held.items():
        if not isinstance(name, str):
            key = printable(name, 40)
            raise ValueError(f"{shown} must hold weights by name, it has the key {key}")
        if not isinstance(value, TensorEntry):
            raise ValueError(
                f"{shown}: {_quoted(name)} must be a dense tensor, it is {_kind(value)}"
            )
    return dict(held)


def _kind(value: Any) -> str:
    if isinstance(value, OtherEntry):
        return value.kind
    return "a Tensor" if isinstance(value, TensorEntry) else f"a {type(value).__name__}"


def _without_prefix(given: Entries, own: Mapping[str, Tensor]) -> Entries:
    """Remove the prefixes that ``DataParallel`` or ``torch.compile`` add to every name."""

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


def _as_entry(tensor: Tensor) -> TensorEntry:
    return TensorEntry(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def _complete(given: Entries, own: Mapping[str, Tensor]) -> Entries:
    """Add what a file may omit: other names of a tied weight, counters of batch norm."""
    by_memory = {_same_memory(own[n]): n for n in own if n in given and own[n].data_ptr()}
    whole = dict(given)
    for name in own.keys() - given.keys():
        twin = by_memory.get(_same_memory(own[name]))
        if twin is not None:
            whole[name] = given[twin]
        elif name.endswith("num_batches_tracked"):  # absent before torch 0.4.1
            whole[name] = _as_entry(own[name])
    return whole


def _fits(given: torch.dtype, own: torch.dtype) -> bool:
    """Return whether ``own`` holds every value of ``given``, a dtype of the same kind."""
    if given == own:
        return True
    kinds = [(d.is_floating_point, d.is_complex, d == torch.bool) for d in (given, own)]
    try:
        return kinds[0] == kinds[1] and torch.promote_types(given, own) == own
    except RuntimeError:  # 8-bit floats
        return False


def _check(given: Entries, own: Mapping[str, Tensor], path: Path) -> None:
    """Raise ``ValueError`` unless names, shapes and dtypes fit the model; read nothing."""
    misfit = f"{printable(path)} does not fit the model:"
    lacks, extra = own.keys() - given.keys(), given.keys() - own.keys()
    if lacks or extra:
        parts = [f"it lacks {_listed(lacks)}"] if lacks else []
        parts += [f"the model has no {_listed(extra)}"] if extra else []
        raise ValueError(f"{misfit} {'; '.join(parts)}")
    for name, stored in given.items():
        target = own[name]
        if stored.shape != target.shape:
            raise ValueError(
                f"{misfit} {name!r} has shape {printable(stored.shape, 100)}, the model's "
                f"{tuple(target.shape)}"
            )
        if not _fits(stored.dtype, target.dtype):
            raise ValueError(f"{misfit} {name!r} is {stored.dtype}, the model's {target.dtype}")


def _read(name: str, stored: TensorEntry, path: Path) -> Tensor:
    """Read a tensor; raise ``ValueError`` if the file does not hold what it lists."""
    try:
        value = stored.read()
    except Exception as error:
        raise ValueError(
            f"{printable(path)} is damaged: {name!r} cannot be read: {error_text(error)}"
        ) from None
    if value.shape != stored.shape or value.dtype != stored.dtype:
        raise ValueError(f"{printable(path)}: {name!r} differs from its description")
    return value


def _check_values(given: Entries, own: Mapping[str, Tensor], path: Path) -> None:
    """Raise ``ValueError`` on NaN, inf, or tied weights that differ."""
    twins: dict[tuple[Any, ...], str] = {}
    for name, stored in given.items():
        value, target = _read(name, stored, path), own[name]
        if not _is_finite(value):
            raise ValueError(f"{printable(path)}: {name!r} holds NaN or inf")
        twin = twins.setdefault(_same_memory(target), name) if target.data_ptr() else name
        if given[twin] is not stored and not torch.equal(_read(twin, given[twin], path), value):
            raise ValueError(
                f"{printable(path)} does not fit the model: {twin!r} and {name!r} differ, in the "
                "model they are one"
            )


def _is_finite(value: Tensor) -> bool:
    if value.dtype.is_floating_point and value.dtype.itemsize == 1:  # no isfinite for float8
        value = value.float()
    return bool(value.isfinite().all())


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights and buffers by name.

    Raises:
        ValueError: one of them has no shape yet.
    """
    state = model.state_dict()
    lazy = [name for name, value in state.items() if is_lazy(value)]
    if lazy:
        raise ValueError(f"{lazy[0]!r} has no shape yet: run the model on a batch first")
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def check_size(path: Path, size: int, own: Mapping[str, Tensor]) -> None:
    """Raise ``ValueError`` if files are far larger than any checkpoint of the model.

    Args:
        path: the file or folder, for the error.
        size: of the files together, in bytes.
        own: the model's tensors by name.
    """
    limit = _MAX_REST + _MAX_COPIES * sum(value.nbytes for value in own.values())
    if size > limit:
        raise ValueError(
            f"{printable(path)} does not fit the model: it has {size} bytes, more than {limit}"
        )


@torch.no_grad()
def fill(own: Mapping[str, Tensor], given: Entries, path: Path) -> None:
    """Overwrite tensors by those of a file, all of them or none.

    Args:
        own: the model's tensors by name.
        given: what the file holds, by the model's names; other names of a tied weight and counters
            of batch norm may be absent.
        path: the file or folder, for errors.

    Raises:
        ValueError: names, shapes or dtypes that do not fit; a damaged tensor; NaN or inf; tied
            weights that differ.
    """
    given = _complete(given, own)
    _check(given, own, path)
    _check_values(given, own, path)
    for name, stored in given.items():
        own[name].copy_(_read(name, stored, path))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Replace a model's weights and buffers by those of a file, all of them or none.

    The file is a ``.safetensors`` file or one of ``torch.save`` (``.pt``, ``.pth``, ``.bin``,
    ``.ckpt``, ``.tar``). The weights may be stored under ``state_dict``, ``model_state_dict``,
    ``model`` or ``net``, and all names may have the prefix ``module.`` or ``_orig_mod.``. A
    narrower dtype of the same kind is widened. No code of the file is run, and no more is read
    than the model has.

    Args:
        model: the model; it keeps its device and dtypes.
        path: the file.

    Raises:
        ValueError: a damaged file; one that holds anything but tensors; names, shapes or dtypes
            that do not fit; a file of more than 100 times the model's bytes; NaN or inf. The model
            is unchanged.
        OSError: the file is missing or cannot be read.

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
    own = own_tensors(model)
    with open_weights(path) as held:
        check_size(path, path.stat().st_size, own)
        fill(own, _without_prefix(named_tensors(held, path), own), path)
