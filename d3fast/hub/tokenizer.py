# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a hub folder, read from a checked copy of its files."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

from d3fast.io.tokenizer_files import copy_tokenizer
from d3fast.io.untrusted import error_text, printable

_PROBE = "".join(chr(c) for c in range(0x20, 0x250) if chr(c).isprintable())
_MAX_GROWTH = 32  # tokens per character


def read_tokenizer(folder: Path) -> tuple[Any, tuple[str, ...]]:
    """Return the tokenizer of a hub folder, padding on the right, and notes.

    Raises:
        ValueError: no transformers; see ``copy_tokenizer``; a tokenizer that the library cannot
            build, or by which a text grows without end.
        OSError: a file that cannot be read.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ValueError(
            f"{printable(folder)} needs transformers: pip install 'd3fast[hub]'"
        ) from None
    with tempfile.TemporaryDirectory() as place:
        notes = copy_tokenizer(folder, Path(place))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tokenizer = AutoTokenizer.from_pretrained(
                    place, local_files_only=True, trust_remote_code=False
                )
            count = max(len(tokenizer(c)["input_ids"]) for c in (*_PROBE, _PROBE))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in its Rust code is no Exception
            raise ValueError(
                f"the tokenizer of {printable(folder)} cannot be used: {error_text(error)}"
            ) from None
    if count > _MAX_GROWTH * len(_PROBE):
        raise ValueError(f"the tokenizer of {printable(folder)} makes texts grow without end")
    if not isinstance(tokenizer.model_max_length, int | float) or tokenizer.model_max_length < 1:
        raise ValueError(f"the tokenizer of {printable(folder)} has no usable model_max_length")
    if tokenizer.padding_side != "right":
        tokenizer.padding_side = "right"
        notes = (*notes, "Texts are padded on the right, not on the left as the tokenizer says.")
    return tokenizer, notes
