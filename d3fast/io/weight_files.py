# SPDX-License-Identifier: Apache-2.0
"""Files of weights from strangers: opened, listed, and only then read, tensor by tensor.

Safetensors cannot run code when it is read; its library checks offsets and sizes, here its header
is kept short and unambiguous. What ``torch.save`` wrote is a pickle, and is never unpickled: see
``d3fast.io.torch_files``. Whatever a file brings a parser to raise becomes one line.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from d3fast.io.pickles import AsksForCode
from d3fast.io.stored import Other, Stored
from d3fast.io.torch_files import read_torch_file
from d3fast.io.untrusted import error_text, open_regular, printable

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
SUFFIXES = (".safetensors", *PICKLES)
_MAX_HEADER = 2**23  # of safetensors: 70,000 tensors
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_SANDBOX = (
    "Read it in a sandbox, and from there take "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors'): docs/hostile-files.md"
)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("its header says something twice")
    return names


def check_header(file: BinaryIO) -> dict[str, Any]:
    """The header of a safetensors file, names to what is said of them.

    Raises:
        ValueError: one that is longer than 8 MiB or than the file, no JSON, or has a name twice.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER:
        raise ValueError(f"its header claims {length} bytes, more than {_MAX_HEADER}")
    raw = file.read(length)
    if len(raw) < length or not length:
        raise ValueError(f"its header claims {length} bytes, {len(raw)} are there")
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header


def _stored(name: str, said: Any, tensor: Callable[[str], Tensor]) -> Stored | Other:
    dtype = _DTYPES.get(said["dtype"])
    if dtype is None:
        return Other(f"a tensor of {printable(said['dtype'], 40)}")
    return Stored(tuple(said["shape"]), dtype, lambda: tensor(name))


def _read_safetensors(path: Path, file: BinaryIO, stack: ExitStack) -> dict[str, Stored | Other]:
    header = check_header(file)
    opened = stack.enter_context(safe_open(path, framework="pt"))  # checks offsets and sizes
    names = [name for name in header if name != "__metadata__"]
    return {name: _stored(name, header[name], opened.get_tensor) for name in names}


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """What a file of weights holds, its tensors not read yet.

    Args:
        path: a ``.safetensors`` file, or one that ``torch.save`` wrote.

    Yields:
        What was saved; ``Stored`` in place of each dense tensor, which can be read inside the
        ``with`` block, ``Other`` in place of other things that cannot be weights.

    Raises:
        ValueError: another suffix, no regular file, a damaged one, one that claims more than it
            holds, one that asks for code.
        OSError: a file that is not there or cannot be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise ValueError(f"weights must be in a file ending in {known}, got {printable(path)}")
    with ExitStack() as stack:
        file = stack.enter_context(open_regular(path))
        try:
            if path.suffix.lower() == ".safetensors":
                held: Any = _read_safetensors(path, file, stack)
            else:
                held = read_torch_file(file)
        except AsksForCode as error:
            raise ValueError(
                f"{printable(path)} holds more than tensors (it asks for "
                f"{printable(error.args[0], 80)}), which can run code: refused. {_SANDBOX}"
            ) from None
        except Exception as error:
            raise ValueError(
                f"{printable(path)} is damaged or no file of weights: {error_text(error)}"
            ) from None
        yield held
