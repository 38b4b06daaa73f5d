"""Hostile archives of ``torch.export``: only the description and bytes of weights are read."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.files import Case, Reduced, content, damaged, forged_zip, special
from tests.hostile.models import state

_CONFIG = "w/data/weights/model_weights_config.json"


def _described(**changes: Any) -> dict[str, Any]:
    """A description of good weights, that of one bias changed."""
    numbers = {"torch.float32": 7, "torch.int64": 5}
    config: dict[str, Any] = {}
    for position, (name, value) in enumerate(state().items()):
        config[name] = {
            "path_name": f"weight_{position}",
            "use_pickle": False,
            "tensor_meta": {
                "dtype": numbers[str(value.dtype)],
                "sizes": [{"as_int": n} for n in value.shape],
                "strides": [{"as_int": n} for n in value.stride()],
                "storage_offset": {"as_int": 0},
                "layout": 7,
            },
        }
    bias = config["3.bias"]
    for key, value in changes.items():
        (bias if key in bias else bias["tensor_meta"])[key] = value
    return {"config": config}


def _archive(config: Any = None, *more: tuple[str, bytes], **options: Any) -> bytes:
    raw = config if isinstance(config, bytes) else json.dumps(config or _described()).encode()
    tensors = [
        (f"w/data/weights/weight_{n}", value.numpy().tobytes())
        for n, value in enumerate(state().values())
    ]
    members = [("w/byteorder", b"little"), *tensors, *more, (_CONFIG, raw)]
    return forged_zip(members, **options)


def _file(*args: Any, **options: Any) -> Callable[[Path], Path]:
    return content("w.pt2", lambda: _archive(*args, **options))


def _pickled(folder: Path) -> Path:
    """A weight, sample inputs and constants that would run code."""
    code = pickle.dumps(Reduced(os.system, f"touch {folder / 'mark'}"), 2)
    more = [
        ("w/data/weights/code", code),
        ("w/data/sample_inputs/model.pt", code),
        ("w/data/constants/custom_obj_0", code),
    ]
    described = _described(use_pickle=True, path_name="code")
    return content("w.pt2", _archive(described, *more))(folder)


def _ints(*values: int) -> list[dict[str, int]]:
    return [{"as_int": value} for value in values]


EXPORTED = [
    *special(".pt2"),
    Case("code in a pickled weight", _pickled, "'3.bias' must be a dense tensor, .* pickled"),
    Case("no weights", content("w.pt2", forged_zip([("w/byteorder", b"little")])), "no record"),
    Case("big-endian", content("w.pt2", forged_zip([(_CONFIG, b"{}")])), "unknown order"),
    Case("a description of 4 GiB", _file(b"{}", claims=2**32), "claims"),
    Case("a compressed description", _file(b"{}", method=8), ""),
    Case("an encrypted archive", _file(flags=1), ""),
    Case("deep JSON", _file(b'{"config":' * 10**5 + b"1" + b"}" * 10**5), "deep"),
    Case("one name twice", _file(b'{"config": {"a": {}, "a": {}}}'), "twice"),
    Case("a list", _file([1]), ""),
    Case("weights that are a list", _file({"config": [1]}), ""),
    Case("a tensor that is a text", _file({"config": {"a": "b"}}), "does not fit|dense tensor"),
    Case("a tensor larger than its record", _file(_described(sizes=_ints(2**40))), "does not fit"),
    Case("a tensor past its record", _file(_described(storage_offset={"as_int": 1})), "damaged"),
    Case(
        "three numbers over a terabyte",
        _file(_described(strides=_ints(2**38))),
        "spread over",
    ),
    Case("a negative size", _file(_described(sizes=_ints(-3))), "impossible"),
    Case("a size past 64 bits", _file(_described(sizes=_ints(10**30))), "impossible"),
    Case(
        "a size to be evaluated",
        _file(_described(sizes=[{"as_expr": {"expr_str": "__import__('os').system('true')"}}])),
        "impossible",
    ),
    Case("another dtype", _file(_described(dtype=8)), "does not fit"),
    Case("an unknown dtype", _file(_described(dtype=99)), "another dtype"),
    Case("a path out of the archive", _file(_described(path_name="../../w")), "missing"),
    Case("a path that is a list", _file(_described(path_name=["a"] * 1000)), "missing"),
    *damaged(_archive(), ".pt2"),
]
