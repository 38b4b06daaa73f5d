"""Hostile configurations, and states to resume a repair from."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.hostile.files import BAD_NAME, Case, Reduced, content, damaged, special
from tests.hostile.models import torch_file

_toml = partial(content, "w.toml")

CONFIGS = [
    *(case for case in special(".toml") if case.name != "an empty file"),  # a valid one
    Case("a megabyte of dots", _toml(b"a." * 2**19 + b"a=1"), "longer than"),
    Case("a line of dots", _toml(b"a." * 20_000 + b"a=1"), "dots"),
    Case("many lines of dots", _toml((b"a." * 900 + b"a=1\n") * 36), "TOML"),
    Case("brackets 60,000 deep", _toml(b"a=" + b"[" * 60_000), "nested too deeply"),
    Case("an integer of 10,000 digits", _toml(b"lr = " + b"9" * 10_000), "TOML"),
    Case("no UTF-8", _toml(b"\xff\xfe"), "TOML"),
    Case("an unknown option", _toml(b"run = 1"), "option"),
    Case("a preset that prints badly", _toml(f"preset = {BAD_NAME!r}".encode()), "preset|TOML"),
]


def repair_state(**changes: Any) -> dict[str, Any]:
    """What a repair writes after an epoch, some of it replaced."""
    state = {
        "format": "d3fast.repair",
        "version": 1,
        "run": "",
        "phase": "repair",
        "parts": {"model": {"weight": torch.zeros(2)}},
        "history": [],
        "clean_weights": [],
        "random": {"cpu": torch.get_rng_state()},
        "generators": [],
        "seconds": 0.0,
    }
    return {**state, **changes}


def _state(**changes: Any) -> Callable[[Path], Path]:
    return content("w.pt", lambda: torch_file(repair_state(**changes)))


def _views(count: int) -> list[torch.Tensor]:
    """Tensors of 40 MB that lie in one storage, each an element further on."""
    storage = torch.zeros(10**7 + count)
    return [storage[start : start + 10**7] for start in range(count)]


def _doubled(levels: int) -> list[Any]:
    """A list that holds another twice, and so on."""
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested, nested]
    return nested


def _endless() -> list[Any]:
    nested: list[Any] = []
    nested.append(nested)
    return nested


REPAIRS = [
    *special(".pt"),
    Case("lists that double with every level", _state(history=_doubled(30)), "levels"),
    Case("a list that holds itself", _state(history=_endless()), "levels"),
    Case("200 tensors in one storage", _state(parts=_views(200)), "its tensors take more than"),
    Case("two million empty lists", _state(history=[[]] * 2 * 10**6), "instructions|objects"),
    Case("another version", _state(version=10**9), "another version"),
    Case(
        "another run, and tensors without end", _state(run="x", parts=_views(200)), "another repair"
    ),
    Case(
        "other keys",
        content("w.pt", torch_file({"format": "d3fast.repair", "version": 1})),
        "version",
    ),
    Case("code", content("w.pt", torch_file(Reduced(print))), r"builtin.*\.print"),
    *damaged(torch_file(repair_state()), ".pt"),
]
