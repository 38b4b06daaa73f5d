# SPDX-License-Identifier: Apache-2.0
"""Weight files from strangers: opened and listed first, then read tensor by tensor.

A file of ``torch.save`` is a pickle and is never unpickled, see ``d3fast.io.torch_files``; for the
other formats see ``d3fast.io.safetensors_file`` and ``d3fast.io.exported_file``. Every error of
a parser becomes one line.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from d3fast.io.exported_file import read_exported
from d3fast.io.pickles import AsksForCode
from d3fast.io.safetensors_file import open_safetensors
from d3fast.io.torch_files import read_torch_file
from d3fast.io.untrusted import error_text, open_regular, printable

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
EXPORTED = ".pt2"
SUFFIXES = (".safetensors", *PICKLES, EXPORTED)
SANDBOX = (
    "Read it in a sandbox, and from there take "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors'): docs/hostile-files.md"
)


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """Open a weight file and list its content.

    Args:
        path: a ``.safetensors`` file, one written by ``torch.save``, or one of ``torch.export``.

    Yields:
        The saved object, with a ``TensorEntry`` for each dense tensor, which can be read inside the
        ``with`` block, an ``OtherEntry`` for each object that cannot be a weight, and an ``Inert``
        for each object of a class of others.

    Raises:
        ValueError: an unknown suffix, a special file, a damaged one, one that claims more than it
            holds, one that asks for code.
        OSError: a file that is missing or cannot be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise ValueError(f"weights must be in a file ending in {known}, got {printable(path)}")
    with ExitStack() as stack:
        file = stack.enter_context(open_regular(path))
        try:
            if path.suffix.lower() == ".safetensors":
                held: Any = stack.enter_context(open_safetensors(path))[1]
            elif path.suffix.lower() == EXPORTED:
                held = read_exported(file)
            else:
                held = read_torch_file(file, inert=True)
        except AsksForCode as error:
            raise ValueError(
                f"{printable(path)} holds more than tensors (it asks for "
                f"{printable(error.args[0], 80)}), which can run code: refused. {SANDBOX}"
            ) from None
        except Exception as error:
            raise ValueError(
                f"{printable(path)} is damaged or not a weight file: {error_text(error)}"
            ) from None
        yield held
