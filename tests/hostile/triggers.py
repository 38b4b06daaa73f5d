"""Hostile triggers."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from tests.hostile.files import BAD_NAME, Case, content, damaged, safetensors, sparse_file, special

_safe = partial(content, "w.safetensors")

_OPTIONS = {
    "badnets": {"target": 1},
    "blended": {"target": 1},
    "sig": {"target": 1},
    "wanet": {"target": 1},
    "low-frequency": {"target": 1},
    "input-aware": {"target": 1},
    "ssba": {"target": 1},
    "adap-blend": {"target": 1},
    "narcissus": {"target": 1},
}


def trigger(attack: str = "badnets", tensors: Any = None, **options: Any) -> bytes:
    text = json.dumps({**_OPTIONS.get(attack, {}), **options})
    return raw_trigger(text, attack, tensors)


def raw_trigger(options: str, attack: str = "badnets", tensors: Any = None) -> bytes:
    metadata = {"format": "d3fast.attack/1", "attack": attack, "options": options}
    return save(tensors or {}, metadata)


def _trigger(*arguments: Any, **options: Any) -> Callable[[Path], Path]:
    return _safe(lambda: trigger(*arguments, **options))


def _half_bytes() -> bytes:
    metadata = {"format": "d3fast.attack/1", "attack": "badnets", "options": "{}"}
    tensor = {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}
    return safetensors({"__metadata__": metadata, "a": tensor}, bytes(4))


TRIGGERS = [
    *special(".safetensors"),
    Case("a model", _safe(save({"a": torch.zeros(1)})), "not a saved attack"),
    Case("an unknown attack", _trigger("exec"), "attack must be one of"),
    Case("an attack whose name prints badly", _trigger(BAD_NAME), "attack must be one of"),
    Case("a header of 2^63 bytes", _safe(safetensors({}, length=2**63)), ""),
    Case(
        "a header of 90 MB",
        sparse_file("w.safetensors", (90 * 10**6).to_bytes(8, "little") + b"{}", 10**8),
        "claims 90000000 bytes",
    ),
    Case(
        "a tensor of float8",
        _trigger(tensors={"a": torch.zeros(2).to(torch.float8_e4m3fn)}),
        "float8",
    ),
    Case("a tensor of half bytes", _safe(_half_bytes()), "a tensor of F4"),
    Case("an unknown option", _trigger(run="code"), "options"),
    Case("an option whose name prints badly", _trigger(**{BAD_NAME: 1}), "options"),
    Case("options 100,000 deep", _safe(raw_trigger("[" * 10**5)), "damaged"),
    Case("options of a megabyte of digits", _safe(raw_trigger("9" * 2**20)), "damaged"),
    Case("options that are a list", _safe(raw_trigger("[1]")), "options"),
    Case("a target of NaN", _safe(raw_trigger('{"target": NaN}')), "target"),
    Case("a target of 10^4000", _trigger(target=10**4000), ""),
    Case("a target of a list", _trigger(target=[1] * 10**5), "target"),
    Case("a target that prints badly", _trigger(target=BAD_NAME), "target"),
    Case("a size of 10^4000", _trigger(size=10**4000), ""),
    Case("a label mapping that is a list", _trigger(mapping=[1]), ""),
    Case(
        "tensors that no one asked for",
        _trigger("badnets", {"a": torch.zeros(1)}),
        "learns no tensors",
    ),
    Case(
        "tensors whose names print badly",
        _trigger("badnets", {BAD_NAME: torch.zeros(1)}),
        "learns no",
    ),
    Case(
        "10,000 tensors",
        _trigger("badnets", {f"{n}": torch.zeros(1) for n in range(10_000)}),
        "learns no",
    ),
    *(
        Case(f"{name}: other tensors", _trigger(name, {"a": torch.zeros(1)}), "")
        for name in _OPTIONS
    ),
    *(
        Case(f"{name}: {option} of {value!r:.20}", _trigger(name, **{option: value}), "")
        for name, option, value in [
            ("blended", "alpha", 10**400),
            ("blended", "alpha", "x"),
            ("blended", "alpha", None),
            ("sig", "delta", [1]),
            ("sig", "frequency", 10**400),
            ("wanet", "grid", 10**9),
            ("wanet", "strength", "x"),
            ("low-frequency", "strength", {}),
            ("ssba", "width", 2**40),
            ("adap-blend", "grid", 2**40),
            ("narcissus", "strength", "x"),
            ("input-aware", "density", []),
            ("input-aware", "width", 2**40),
        ]
    ),
    *damaged(trigger("badnets"), ".safetensors"),
]
