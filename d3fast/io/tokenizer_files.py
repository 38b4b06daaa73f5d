# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a hub folder, from a stranger: a copy of its files that holds data alone.

A tokenizer's files can name code, other files and regular expressions, and can make a text grow
without end. ``copy_tokenizer`` checks them and writes what is left into a folder of its own; the
library never sees the stranger's folder.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d3fast.io.hub_files import CONFIG, folder_file, read_folder_json
from d3fast.io.json_file import read_object
from d3fast.io.untrusted import printable, read_limited

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
# Vocabularies without a tokenizer.json, of WordPiece, byte-level BPE and SentencePiece.
VOCABULARIES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_TOKENS = ("special_tokens_map.json", "added_tokens.json")
_MAX_BYTES = 2**25 + 2**22  # of one file: 260,000 tokens have 33 MB
_MAX_PARTS = 200  # normalizers, pre-tokenizers and the like
_MAX_GROWTH = 64  # characters that one may become
_MAX_REGEX, _MAX_REPEATS = 2000, 60  # characters, and repetitions in them
_MAX_CHARSMAP = 2**20
_REPEATS = "+*{"


def copy_tokenizer(folder: Path, target: Path) -> tuple[str, ...]:
    """Copy the tokenizer of a hub folder, without all that is no plain data.

    Args:
        folder: the stranger's folder.
        target: an empty folder.

    Returns:
        What was left out, one sentence each.

    Raises:
        ValueError: no tokenizer; one that needs code or pickles; a file that is damaged or too
            large; a regular expression that could run for hours; rules by which a text grows.
        OSError: a file that cannot be read.
    """
    settings = read_folder_json(folder, SETTINGS) or {}
    if "auto_map" in settings and not (folder / TOKENIZER).exists():
        raise ValueError(
            f"{printable(folder / SETTINGS)}: the tokenizer is code (auto_map), which is never run"
        )
    notes = []
    if "auto_map" in settings:
        notes.append(f"The tokenizer names code of its own, which was not read: {TOKENIZER} is.")
    kind = (read_folder_json(folder, CONFIG) or {}).get("model_type")
    _write(target / CONFIG, {"model_type": kind})
    _write(target / SETTINGS, {k: v for k, v in settings.items() if _is_plain(k)})
    for name in _TOKENS:
        held = read_folder_json(folder, name)
        if held is not None:
            _write(target / name, held)
    path = folder_file(folder, TOKENIZER)
    if path is not None:
        held = read_object(path, _MAX_BYTES)
        _check(held, path)
        # Each call gives its own; a padding of 2**40 tokens stays here.
        _write(target / TOKENIZER, {**held, "padding": None, "truncation": None})
    found = [name for name in VOCABULARIES if folder_file(folder, name) is not None]
    for name in found:
        (target / name).write_bytes(read_limited(folder / name, _MAX_BYTES))
    if path is None and not found:
        pickled = [p.name for p in folder.iterdir() if p.suffix in (".pkl", ".pickle", ".bin")]
        beside = [name for name in pickled if "vocab" in name or "token" in name]
        if beside:
            raise ValueError(
                f"{printable(folder)}: the vocabulary is a pickle ('{printable(beside[0], 80)}'), "
                "which is never loaded"
            )
        raise ValueError(f"{printable(folder)} holds no {TOKENIZER} and no vocabulary")
    return tuple(notes)


def _is_plain(key: str) -> bool:
    """Return False for settings that name code, files, or options of other programs."""
    other = ("auto_map", "name_or_path", "chat_template", "processor_class")
    return key not in other and not key.endswith(("_file", "_kwargs", "_path"))


def _write(path: Path, held: Any) -> None:
    path.write_text(json.dumps(held, ensure_ascii=False), encoding="utf-8", errors="replace")


def _parts(held: Any) -> Iterator[dict[str, Any]]:
    """Return all objects inside; the reader has limited their depth."""
    if isinstance(held, dict):
        yield held
        for value in held.values():
            yield from _parts(value)
    elif isinstance(held, list):
        for value in held:
            yield from _parts(value)


def _check(held: dict[str, Any], path: Path) -> None:
    """Raise ``ValueError`` for rules that could run for hours or fill the memory."""
    growth, count = 1, 0
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        for part in _parts(held.get(name)):
            count += "type" in part
            if "Regex" in part:
                check_regex(part["Regex"], path)
            growth *= _growth(part)
            if count > _MAX_PARTS or growth > _MAX_GROWTH:
                break
    if count > _MAX_PARTS:
        raise ValueError(f"{printable(path)} has more than {_MAX_PARTS} rules")
    if growth > _MAX_GROWTH:
        raise ValueError(f"{printable(path)} has rules by which a text grows without end")


def _growth(part: dict[str, Any]) -> int:
    """Return how many characters, or tokens, one may become by a rule."""
    kind = part.get("type")
    if kind == "Replace" or kind == "Prepend":
        return max(1, len(str(part.get("content", part.get("prepend", "")))))
    if kind == "TemplateProcessing":
        ids = sum(len(p["ids"]) for p in _parts(part) if isinstance(p.get("ids"), list))
        templates = [part.get("single"), part.get("pair")]
        pieces = sum(len(template) for template in templates if isinstance(template, list))
        return _MAX_GROWTH + 1 if ids + pieces > _MAX_GROWTH else 1
    if kind == "Precompiled":
        held = part.get("precompiled_charsmap")
        return _MAX_GROWTH + 1 if held is not None and len(held) > _MAX_CHARSMAP else 1
    return 1


def check_regex(pattern: Any, path: Path) -> None:
    r"""Raise ``ValueError`` for a regular expression that could take exponential time.

    A group that is repeated must not repeat anything itself.

    Args:
        pattern: the expression.
        path: its file, for the error.

    Example:
        >>> check_regex(r"'s|'t| ?\p{L}+| ?\p{N}{1,3}|(?i:'ll|'ve)?\s+(?!\S)", Path("t.json"))
        >>> check_regex(r"(\w+\s?)+$", Path("t.json"))
        Traceback (most recent call last):
        ValueError: t.json: the regular expression '(\\w+\\s?)+$' repeats a repetition
    """
    shown = printable(path)
    if not isinstance(pattern, str) or len(pattern) > _MAX_REGEX:
        raise ValueError(f"{shown} has a regular expression of more than {_MAX_REGEX} characters")
    plain = re.sub(r"\\[pP]\{\^?\w+\}|\\.", "x", pattern, flags=re.DOTALL)
    plain = re.sub(r"\[(?:\[[^\]]*\]|[^\[\]])*\]", "x", plain)
    open_groups, repeats = [False], 0
    for at, character in enumerate(plain):
        if character == "(":
            open_groups.append(False)
        elif character == ")" and len(open_groups) > 1:
            inner = open_groups.pop()
            if inner and plain[at + 1 : at + 2] in tuple(_REPEATS):
                raise ValueError(
                    f"{shown}: the regular expression {printable(repr(pattern), 80)} repeats a "
                    "repetition"
                )
            open_groups[-1] |= inner
        elif character in _REPEATS:
            open_groups[-1], repeats = True, repeats + 1
    if repeats > _MAX_REPEATS:
        raise ValueError(f"{shown} has a regular expression of {repeats} repetitions")
