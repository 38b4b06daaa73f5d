# SPDX-License-Identifier: Apache-2.0
"""``load_weights``: fill a model with weights from an untrusted file.

``d3fast.io.weight_files`` lists what the file holds, ``d3fast.io.state_dicts`` finds the model's
names in it. Names, shapes and dtypes are compared with the model before a tensor is read, so no
more is read than the model has. All values are checked before the first weight is overwritten, one
tensor in memory at a time. ``d3fast.io.hub_files`` fills a model from several files with the same
checks.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.pickles import Inert
from d3fast.io.state_dicts import EMA_KEYS, Place, find_weights, shared_prefix, state_dicts
from d3fast.io.untrusted import error_text, printable
from d3fast.io.weight_files import SANDBOX, open_weights

Entries = dict[str, TensorEntry]

_OPTIONAL = "num_batches_tracked"  # absent before torch 0.4.1

# A training checkpoint holds a few copies of the weights; a sparse file may claim terabytes.
_MAX_COPIES = 100
_MAX_REST = 2**28


def _quoted(name: object) -> str:
    return f"'{printable(name, 100)}'"


def _listed(names: Iterable[str], most: int = 3) -> str:
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(map(_quoted, found[:most])) + more


@dataclass(frozen=True)
class WeightsRead:
    """What ``load_weights`` read, for notes and for a file with the same names.

    Attributes:
        dtypes: dtype in the file of each weight, by the model's name.
        names: name in the file of each weight, by the model's name.
        notes: what was found on the way to the weights, one sentence each.
    """

    dtypes: Mapping[str, torch.dtype]
    names: Mapping[str, str]
    notes: tuple[str, ...]


def _kind(value: Any) -> str:
    if isinstance(value, OtherEntry):
        return value.kind
    if isinstance(value, Inert):
        return f"an object of {printable(value.name, 80)}"
    return "a Tensor" if isinstance(value, TensorEntry) else f"a {type(value).__name__}"


def named_tensors(held: Any, path: Path) -> Entries:
    """Return the tensors of one of several files by name, without dictionaries around them.

    Raises:
        ValueError: anything but dense tensors by name.
    """
    if isinstance(held, Mapping) and not held:
        return {}
    _, entries = next((pair for pair in state_dicts(held) if pair[1]), ((), {}))
    found = {name: value for name, value in entries.items() if isinstance(value, TensorEntry)}
    if len(found) < len(entries) or not entries:
        raise _misfit(held, {}, path)
    return found


def _groups(own: Mapping[str, Tensor]) -> tuple[list[list[str]], list[str]]:
    """Return the names of each weight, several if it is tied, and the names that may lack."""
    groups: dict[Any, list[str]] = {}
    optional = []
    for name, value in own.items():
        if name.endswith(_OPTIONAL):
            optional.append(name)
        else:
            memory = _same_memory(value) if value.data_ptr() else name
            groups.setdefault(memory, []).append(name)
    return list(groups.values()), optional


def _place(held: Any, own: Mapping[str, Tensor], path: Path) -> tuple[Entries, Place]:
    """Return the weights by the model's names, and where they lie in the file.

    Raises:
        ValueError: the model's names are nowhere, or in two places, or one is no dense tensor.
    """
    shown = printable(path)
    try:
        place = find_weights(held, *_groups(own))
    except LookupError:
        raise _misfit(held, own, path) from None
    except ValueError as error:
        raise ValueError(f"{shown} does not fit the model: {printable(error)}") from None
    level = held
    for key in place.keys:
        level = level[key]
    found: Entries = {}
    for name, stored in place.names.items():
        value = level[stored]
        if not isinstance(value, TensorEntry):
            raise ValueError(f"{shown}: {_quoted(name)} must be a dense tensor, it is {value.kind}")
        found[name] = value
    return found, place


def _misfit(held: Any, own: Mapping[str, Tensor], path: Path) -> ValueError:
    """Return the error for a file without the model's names."""
    shown = printable(path)
    if not isinstance(held, Mapping):
        return ValueError(f"{shown} must hold weights by name, it holds {_kind(held)}{_code(held)}")
    _, entries = next((pair for pair in state_dicts(held) if pair[1]), ((), {}))
    odd = entries or held
    kinds = (Inert, OtherEntry)
    name, value = next(
        (item for kind in kinds for item in odd.items() if isinstance(item[1], kind)),
        next(iter(odd.items()), (None, None)),
    )
    if name is not None and not isinstance(name, str):
        key = printable(name, 40)
        return ValueError(f"{shown} must hold weights by name, it has the key {key}")
    if name is not None and not isinstance(value, TensorEntry):
        return ValueError(
            f"{shown}: {_quoted(name)} must be a dense tensor, it is {_kind(value)}{_code(value)}"
        )
    prefix = shared_prefix(entries)
    if any(name.startswith(prefix) for name in own):
        prefix = ""
    return _other_names({name.removeprefix(prefix) for name in entries}, own, path)


def _other_names(given: Set[str], own: Mapping[str, Tensor], path: Path) -> ValueError:
    lacks = {name for name in own.keys() - given if not name.endswith(_OPTIONAL)}
    extra = given - own.keys()
    parts = [f"it lacks {_listed(lacks)}"] if lacks else []
    parts += [f"the model has no {_listed(extra)}"] if extra else []
    return ValueError(f"{printable(path)} does not fit the model: {'; '.join(parts)}")


def _code(value: Any) -> str:
    """Return the advice for an object that only code could make weights of."""
    return f": refused. {SANDBOX}" if isinstance(value, Inert) else ""


def _notes(held: Any, place: Place) -> tuple[str, ...]:
    """Return what a reader of the results should know about the file."""
    notes = []
    if place.keys:
        shown = " in ".join(map(_quoted, reversed(place.keys)))
        others = [key for key in (*EMA_KEYS, "state_dict", "model") if key in held]
        beside = [key for key in others if key != place.keys[0]]
        average = ", an average over training (EMA)" if place.averaged else ""
        rest = f"; {_listed(beside)} beside them, not read" if beside else ""
        notes.append(f"The weights are those of {shown}{average}{rest}.")
    if place.prefix:
        notes.append(f"The names in the file begin with {_quoted(place.prefix)}, removed here.")
    if any(stored != place.prefix + name for name, stored in place.names.items()):
        notes.append("Parts of the names that wrappers of submodules add are removed.")
    if place.beside:
        notes.append(f"{place.beside} tensors of the file under other names are not read.")
    inert = sorted(
        {printable(value.name, 80) for value in held.values() if isinstance(value, Inert)}
    )
    if inert:
        notes.append(f"The file also holds objects of {_listed(inert)}, which are not made.")
    return tuple(notes)


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
        elif name.endswith(_OPTIONAL):
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
    if own.keys() != given.keys():
        raise _other_names(given.keys(), own, path)
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


def stored_shapes(model: nn.Module, path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes in a file of the weights that a model has; no tensor is read.

    Args:
        model: its names count, not its sizes; it may be on the meta device.
        path: the file; see ``load_weights``.

    Raises:
        ValueError: a damaged file, or names that are not the model's.
        OSError: the file is missing or cannot be read.
    """
    path = Path(path)
    with open_weights(path) as held:
        found, _ = _place(held, own_tensors(model), path)
        return {name: entry.shape for name, entry in found.items()}


def stored_names(path: str | Path) -> frozenset[str]:
    """Return the names of all tensors in the dictionaries of a file that may hold weights.

    Raises:
        ValueError: a damaged file, or one that holds no dictionary.
        OSError: the file is missing or cannot be read.
    """
    with open_weights(Path(path)) as held:
        if not isinstance(held, Mapping):
            raise _misfit(held, {}, Path(path))
        return frozenset(name for _, entries in state_dicts(held) for name in entries)


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


def load_weights(model: nn.Module, path: str | Path) -> WeightsRead:
    """Replace a model's weights and buffers by those of a file, all of them or none.

    The file is a ``.safetensors`` file or one of ``torch.save`` (``.pt``, ``.pth``, ``.bin``,
    ``.ckpt``, ``.tar``). The weights may be stored under ``state_dict_ema``, ``state_dict``,
    ``model`` and the like, an average over training (EMA) first, and their names may have one
    prefix, such as ``module.`` or Lightning's ``model.``, where they then are the model's; see
    ``find_weights``. A narrower dtype of the same kind is widened. No code of the file is run,
    other objects in it are not made, and no more is read than the model has.

    Args:
        model: the model; it keeps its device and dtypes.
        path: the file.

    Returns:
        What was read; its notes say which keys and prefix led to the weights.

    Raises:
        ValueError: a damaged file; one without weights by name; names, shapes or dtypes that do
            not fit; a file of more than 100 times the model's bytes; NaN or inf. The model
            is unchanged.
        OSError: the file is missing or cannot be read.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> model = nn.Linear(2, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "weights.safetensors")
        ...     save_file({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, file)
        ...     _ = load_weights(model, file)
        >>> model.weight.tolist()
        [[1.0, 1.0]]
    """
    path = Path(path)
    own = own_tensors(model)
    with open_weights(path) as held:
        check_size(path, path.stat().st_size, own)
        found, place = _place(held, own, path)
        fill(own, found, path)
        notes = _notes(held, place)
    dtypes = {name: entry.dtype for name, entry in found.items()}
    return WeightsRead(dtypes, dict(place.names), notes)
