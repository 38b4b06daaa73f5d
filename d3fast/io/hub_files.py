# SPDX-License-Identifier: Apache-2.0
"""A folder as the Hugging Face hub lays it out, from a stranger: its JSON files and its weights.

The weights are one file, or several shards with an index that says which tensor is in which. Names
in an index are plain file names; links that leave the folder are refused, except those of the hub's
own cache, where a snapshot links to the blobs beside it. No file of code is ever opened.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from d3fast.io.checkpoints import Entries, check_size, fill, named_tensors, own_tensors
from d3fast.io.json_file import read_object
from d3fast.io.paths import check_plain_name, checked_file
from d3fast.io.untrusted import printable
from d3fast.io.weight_files import open_weights

CONFIG = "config.json"
SAFETENSORS = "model.safetensors"
PICKLED = "pytorch_model.bin"
_MAX_INDEX = 2**23  # bytes: 70,000 tensors; as objects of Python they take 200 MB
_MAX_SHARDS = 200  # open at the same time
_CODE = (".py", ".pyc", ".so", ".pkl", ".pickle", ".joblib", ".dill")
_MAX_LISTED = 100_000


def folder_root(folder: Path) -> Path:
    """Return the folder that links may not leave: in the hub's cache, that of the repository.

    Example:
        >>> folder_root(Path("models--org--name/snapshots/0123")).name
        'models--org--name'
        >>> folder_root(Path("downloads/name")).name
        'name'
    """
    snapshots = folder.parent
    cached = snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--")
    return snapshots.parent if cached else folder


def folder_file(folder: Path, name: str) -> Path | None:
    """Return the path of a file in a hub folder; ``None`` if there is none.

    Raises:
        ValueError: a link out of the folder, a folder, a pipe or a device.
    """
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    return checked_file(path, folder_root(folder))


def read_folder_json(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the JSON object of a file in a hub folder; ``None`` without such a file.

    Raises:
        ValueError: see ``folder_file`` and ``read_object``.
        OSError: a file that cannot be read.
    """
    path = folder_file(folder, name)
    return None if path is None else read_object(path)


def code_files(folder: Path) -> tuple[str, ...]:
    """Return the names of files beside the weights that could run code if somebody opened them.

    Raises:
        ValueError: a folder of more than 100,000 files.
    """
    found = []
    for number, path in enumerate(folder.iterdir()):
        if number == _MAX_LISTED:
            raise ValueError(f"{printable(folder)} holds more than {_MAX_LISTED} files")
        if path.suffix.lower() in _CODE:
            found.append(path.name)
    return tuple(sorted(found))


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of a hub folder.

    Attributes:
        folder: where they are.
        files: the files, sorted by name.
        index: the index of the shards; ``None`` for a single file.
        places: file name of each tensor, according to the index; ``None`` for a single file.
    """

    folder: Path
    files: tuple[Path, ...]
    index: Path | None = None
    places: Mapping[str, str] | None = None

    @property
    def pickled(self) -> bool:
        """Whether they are files of ``torch.save``."""
        return self.files[0].suffix == ".bin"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)


def find_weights(folder: Path) -> WeightFiles:
    """Return the weight files of a hub folder; safetensors come first, as the library has it.

    Raises:
        ValueError: no weights; an index that is damaged, names anything but files of the folder, or
            more than 200 of them.
        OSError: a file that cannot be read.
    """
    for name in (SAFETENSORS, PICKLED):
        single = folder_file(folder, name)
        if single is not None:
            return WeightFiles(folder, (single,))
        index = folder_file(folder, f"{name}.index.json")
        if index is not None:
            return _shards(folder, index, Path(name).suffix)
    raise ValueError(f"{printable(folder)} holds no {SAFETENSORS} or {PICKLED}, nor an index")


def _shards(folder: Path, index: Path, suffix: str) -> WeightFiles:
    places = read_object(index, _MAX_INDEX).get("weight_map")
    shown = printable(index)
    if not isinstance(places, dict) or not places:
        raise ValueError(f"{shown} has no weight_map")
    if not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{shown}: weight_map must name a file for each tensor")
    names = sorted(set(places.values()))
    if len(names) > _MAX_SHARDS:
        raise ValueError(f"{shown} names {len(names)} files, more than {_MAX_SHARDS}")
    for name in names:
        check_plain_name(name, index)
        if Path(name).suffix != suffix:
            raise ValueError(f"{shown} names the file '{printable(name, 80)}': not a {suffix} file")
    root = folder_root(folder)
    files = tuple(checked_file(folder / name, root) for name in names)
    return WeightFiles(folder, files, index, places)


@contextmanager
def open_weight_files(found: WeightFiles) -> Iterator[Entries]:
    """Open all weight files of a folder and list their tensors.

    Yields:
        The tensors by the names of the files; they can be read inside the ``with`` block.

    Raises:
        ValueError: a damaged file, one that asks for code, one that holds anything but tensors; a
            tensor that is not in the shard that the index names, or that the index does not name.
        OSError: a file that is missing or cannot be read.
    """
    with ExitStack() as stack:
        given: Entries = {}
        for file in found.files:
            held = named_tensors(stack.enter_context(open_weights(file)), file)
            _check_places(held, file, found)
            given |= held
        yield given


def _check_places(held: Entries, file: Path, found: WeightFiles) -> None:
    if found.places is None:
        return
    listed = {name for name, place in found.places.items() if place == file.name}
    for name in sorted(listed ^ held.keys())[:1]:
        wrong = "is not in it" if name in listed else "is in it, and the index does not say so"
        raise ValueError(f"{printable(file)} does not fit the index: '{printable(name)}' {wrong}")


def load_weight_files(
    model: nn.Module, found: WeightFiles, rename: Callable[[str], str] = str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Replace a model's weights and buffers by those of a folder, all of them or none.

    The checks are those of ``load_weights``, except that tensors which the model does not have are
    left alone: the library ignores them too. One of two tied weights is enough. At most one tensor
    is in memory beside the model.

    Args:
        model: the model; it keeps its device and dtypes.
        found: the files.
        rename: the model's name of a tensor, given that of the files.

    Returns:
        The model's name by the files' name; and the names of the tensors that were left alone.

    Raises:
        ValueError: see ``load_weights`` and ``open_weight_files``; two tensors of one name. The
            model is unchanged.
        OSError: a file that is missing or cannot be read.
    """
    own = own_tensors(model)
    shown = found.files[0] if found.index is None else found.index
    check_size(shown, found.size, own)
    with open_weight_files(found) as given:
        names = {name: rename(name) for name in given}
        unused = tuple(sorted(name for name in names if names[name] not in own))
        names = {name: inner for name, inner in names.items() if inner in own}
        if len(set(names.values())) < len(names):
            raise ValueError(f"{printable(shown)}: two of its tensors are one in the model")
        held = {(own[inner].data_ptr(), own[inner].shape) for inner in names.values()}
        own = {
            name: value
            for name, value in own.items()
            # Files hold one of two tied weights, such as those of embeddings and head.
            if name in names.values() or (value.data_ptr(), value.shape) not in held
        }
        fill(own, {inner: given[name] for name, inner in names.items()}, shown)
    return names, unused
