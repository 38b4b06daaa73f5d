# SPDX-License-Identifier: Apache-2.0
"""A model of transformers from a hub folder: built from its configuration alone, then filled.

The configuration is a stranger's: its numbers decide how large the model is, and some of its keys
name code, kernels or files. It is built on the ``meta`` device first, where weights take no memory,
and stopped as soon as it outgrows the weight files. Code in the folder is never opened; the model
is always the library's own class, and all weights must fit it.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

from d3fast.hub.folder_writer import FolderWriter
from d3fast.hub.folders import HubFolder
from d3fast.io.files import files_digest
from d3fast.io.hub_files import (
    PICKLED,
    WeightFiles,
    find_weights,
    load_weight_files,
    open_weight_files,
)
from d3fast.io.untrusted import error_text, is_displayable, printable

_MAX_COUNT = 4096  # layers, blocks, stages
_MAX_CLASSES = 100_000
_COUNTED = ("layer", "depth", "block", "stage", "repeat", "scale")
# What a model may have, as multiples of its files: 8-bit floats become 32-bit ones, some buffers
# are in no file, and modules without weights lie around those with weights.
_TIMES = {"bytes": 4, "tensors": 2, "modules": 10}
_MORE = {"bytes": 2**28, "tensors": 1000, "modules": 2000}
_MAX_TENSOR_NAME = 500
# Keys that name code, kernels, places or downloads; none of them is part of the model.
_DROPPED = (
    "auto_map",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
    "use_kernels",
    "use_pretrained_backbone",
    "name_or_path",
    "_name_or_path",
    "custom_pipelines",
)


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A model of transformers with a folder's weights.

    Attributes:
        model: in eval mode, on the CPU, in float32.
        config: its configuration.
        weights: the files that were read.
        sha256: of the weight file; of several files, of their sorted names and digests.
        notes: what the user should know.
        save: the writer.
    """

    model: nn.Module
    config: Any
    weights: WeightFiles
    sha256: str
    notes: tuple[str, ...]
    save: FolderWriter


def load_pretrained(folder: HubFolder, auto: str) -> Pretrained:
    """Build the model of a folder and fill it with the folder's weights.

    Args:
        folder: the folder.
        auto: class of transformers that chooses the model, such as
            ``"AutoModelForImageClassification"``.

    Raises:
        ValueError: no transformers; a model that transformers does not know, which includes all
            models with code of their own; a configuration that is damaged or larger than the
            weights; quantised weights; weights that do not fit.
        OSError: a file that cannot be read.
    """
    weights = find_weights(folder.path)
    config = _config(folder)
    with quiet():
        with bounded(folder, weights), torch.device("meta"):
            _build(folder, config, auto)
        model = _build(folder, config, auto)
        names, unused = load_weight_files(model, weights, _rename(model))
    return Pretrained(
        model=model.eval(),
        config=config,
        weights=weights,
        sha256=files_digest(weights.files),
        notes=(*folder_notes(folder, weights, unused, f"{type(model).__name__} of transformers"),),
        save=FolderWriter(weights, names),
    )


def _config(folder: HubFolder) -> Any:
    """Return the configuration as an object of transformers."""
    try:
        from transformers import CONFIG_MAPPING
    except ImportError:
        raise ValueError(
            f"{printable(folder.path)} needs transformers: pip install 'd3fast[hub]'"
        ) from None
    shown = printable(folder.path / "config.json")
    kind = folder.config.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ValueError(
            f"{shown}: transformers knows no model_type '{printable(kind, 80)}'{_because(folder)}"
        )
    if folder.config.get("quantization_config") is not None:
        raise ValueError(f"{shown}: quantised weights cannot be repaired: take the full ones")
    kept = {key: value for key, value in folder.config.items() if key not in _DROPPED}
    check_counts(kept, "", shown)
    try:
        with quiet():
            return CONFIG_MAPPING[kind].from_dict(kept)
    except Exception as error:  # each configuration has checks of its own
        raise ValueError(f"{shown} cannot be used: {error_text(error)}") from None


def _because(folder: HubFolder) -> str:
    named = folder.config.get("auto_map")
    if not folder.code and not named:
        return ""
    what = f"'{printable(folder.code[0], 80)}'" if folder.code else "auto_map"
    return f"; the folder brings code of its own ({what}), which is never run"


def check_counts(held: Any, key: str, shown: str) -> None:
    """Raise ``ValueError`` for a count that would build without end. Depth is limited already."""
    if isinstance(held, dict):
        for name, value in held.items():
            check_counts(value, name, shown)
    elif isinstance(held, list):
        for value in held:
            check_counts(value, key, shown)
    elif type(held) is int:
        classes = key in ("num_labels", "num_classes")
        counted = any(word in key for word in _COUNTED) and not key.endswith("_id")
        limit = _MAX_CLASSES if classes else _MAX_COUNT if counted else 2**31
        if abs(held) > limit:
            raise ValueError(
                f"{shown}: '{printable(key, 80)}' is {printable(held, 40)}, more than {limit}"
            )


def _build(folder: HubFolder, config: Any, auto: str) -> nn.Module:
    """Build the model without initialising its weights."""
    import transformers
    from transformers.initialization import no_init_weights

    shown = printable(folder.path / "config.json")
    chooser = getattr(transformers, auto)
    try:
        with no_init_weights():
            model: nn.Module = chooser.from_config(
                config, dtype=torch.float32, trust_remote_code=False
            )
            model.tie_weights()  # type: ignore[operator]
    except Exception as error:  # of any model's constructor
        raise ValueError(f"{shown}: the model cannot be built: {error_text(error)}") from None
    if type(model).__name__ != folder.architecture:
        raise ValueError(
            f"{shown}: transformers has no '{printable(folder.architecture, 80)}' of model_type "
            f"'{printable(config.model_type, 80)}', it has {type(model).__name__}{_because(folder)}"
        )
    return model


@contextmanager
def bounded(folder: HubFolder, weights: WeightFiles) -> Iterator[None]:
    """Raise ``ValueError`` as soon as a model outgrows its weight files."""
    with open_weight_files(weights) as held:
        there = {"bytes": weights.size, "tensors": len(held), "modules": len(held)}
    left = {what: _TIMES[what] * there[what] + _MORE[what] for what in there}

    def check(what: str, amount: int) -> None:
        left[what] -= amount
        if left[what] < 0:
            raise ValueError(f"it has far more {what} than the weight files of {folder.name}")

    def tensor(_: nn.Module, __: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            check("tensors", 1)
            check("bytes", value.nbytes)

    def child(_: nn.Module, __: str, ___: Any) -> None:
        check("modules", 1)

    handles = (
        hooks.register_module_parameter_registration_hook(tensor),
        hooks.register_module_buffer_registration_hook(tensor),
        hooks.register_module_module_registration_hook(child),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and the library's log: d3fast prints what matters itself."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def _rename(model: nn.Module) -> Callable[[str], str]:
    """Return the function from a file's name of a tensor to the model's.

    Transformers renames tensors of older files; where it would also have to split or join them, the
    name stays and does not fit.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    own = model.state_dict()
    changes = get_model_conversion_mapping(model)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if not isinstance(change, WeightRenaming)]
    prefix = getattr(model, "base_model_prefix", None)

    def rename(name: str) -> str:
        if len(name) > _MAX_TENSOR_NAME:  # no regular expression on a name of a megabyte
            return name
        renamed, joined = rename_source_key(name, renamings, converters, prefix, own)
        if joined is not None:
            return name
        if renamed not in own:  # the name may lack the prefix alone
            renamed, _ = rename_source_key(name, [], [], prefix, own)
        return renamed if renamed in own else name

    return rename


def folder_notes(
    folder: HubFolder, weights: WeightFiles, unused: tuple[str, ...], kind: str
) -> Iterator[str]:
    """Yield what the user should know of a folder's files.

    Args:
        folder: the folder.
        weights: its weight files.
        unused: tensors that the model does not have.
        kind: the model's class and library.
    """
    if weights.pickled:
        yield (
            f"The weights are pickles ({PICKLED}), read without unpickling; the repaired model is "
            "written as safetensors."
        )
    if folder.code or folder.config.get("auto_map"):
        named = ", ".join(printable(name, 60) for name in folder.code[:3]) or "auto_map"
        yield (
            f"The folder brings code of its own ({named}), which was not read and is not copied; "
            f"the model is {kind}, and all weights fit it."
        )
    if unused:
        yield (
            f"The model does not use {len(unused)} of the tensors, such as "
            f"'{printable(unused[0], 80)}'; they are copied as they are."
        )


def class_names(
    folder: HubFolder, labels: Mapping[Any, Any] | None, count: int
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return the names of a model's outputs, and notes; no names if the folder does not tell.

    Args:
        folder: the folder, for errors.
        labels: ``id2label`` of its ``config.json``.
        count: number of outputs.

    Raises:
        ValueError: numbers other than 0 to ``count`` - 1; a name that does not print.
    """
    if not labels:
        return None, ()
    shown = printable(folder.path / "config.json")
    try:
        by_number = {int(number): name for number, name in labels.items()}
    except (TypeError, ValueError):
        raise ValueError(f"{shown}: id2label must name classes by number") from None
    if sorted(by_number) != list(range(count)) or len(labels) != count:
        raise ValueError(f"{shown}: id2label must name the classes 0 to {count - 1}")
    names = [by_number[number] for number in range(count)]
    for name in names:
        if not isinstance(name, str) or not name.strip() or not is_displayable(name):
            raise ValueError(f"{shown}: the class name '{printable(name, 80)}' does not print")
    if all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return None, ()
    twice = {name for name, times in Counter(names).items() if times > 1}
    if not twice:
        return tuple(names), ()
    distinct = tuple(f"{n} ({i})" if n in twice else n for i, n in enumerate(names))
    if len(set(distinct)) < count:
        raise ValueError(f"{shown}: id2label names a class twice")
    example = printable(min(twice), 60)
    note = f"Several classes have one name ('{example}'): their numbers are added to the names."
    return distinct, (note,)
