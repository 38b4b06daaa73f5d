# SPDX-License-Identifier: Apache-2.0
"""Objects of other classes in a pickle: read past, or the sign of an attack; never made."""

import argparse
import collections
import datetime
import decimal
import functools
import io
import os
import pathlib
import subprocess
import types
from typing import ClassVar

import numpy as np
import pytest
import torch

from d3fast.io.foreign import inert
from d3fast.io.pickles import AsksForCode, Inert
from d3fast.io.torch_files import read_torch_file


class Config(dict):
    """A dictionary with attributes, as settings of many packages are."""

    def __init__(self, **values):
        super().__init__(values)
        self.made = True


class Made:
    """Makes a mark when it is made, given state or compared."""

    marks: ClassVar = []

    def __new__(cls):
        cls.marks.append("new")
        return super().__new__(cls)

    def __setstate__(self, state):
        self.marks.append("state")

    def __reduce_ex__(self, protocol):
        import copyreg

        return copyreg.__newobj__, (type(self),), {"a": 1}


HARMLESS = {
    "namespace": argparse.Namespace(lr=0.1, path=pathlib.Path("x")),
    "path": pathlib.PurePosixPath("/a/b"),
    "scalar": np.float64(1.5),
    "array": np.arange(3),
    "random state": np.random.RandomState(0),
    "date": datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc),
    "decimal": decimal.Decimal("1.5"),
    "deque": collections.deque([1]),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "partial": functools.partial(print, 1),
    "space": types.SimpleNamespace(a=1),
    "config": Config(a=1),
    "set": {1, 2},
    "frozen": frozenset({3}),
    "a class": Config,
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("case", HARMLESS)
def test_settings_and_state_of_training_are_read_past(case, protocol):
    buffer = io.BytesIO()
    held = {"extra": HARMLESS[case], "more": [HARMLESS[case]], "weights": torch.arange(3.0)}
    torch.save(held, buffer, pickle_protocol=protocol)
    buffer.seek(0)
    found = read_torch_file(buffer, inert=True)
    assert found["weights"].read().tolist() == [0, 1, 2]
    assert not isinstance(found["extra"], type(HARMLESS[case])) or case == "a class"


def test_no_object_is_made_and_none_gets_a_state():
    made = Made()
    Made.marks.clear()
    buffer = io.BytesIO()
    torch.save({"a": made}, buffer)
    buffer.seek(0)
    assert read_torch_file(buffer, inert=True)["a"] == Inert(f"{__name__}.Made")
    assert not Made.marks


def test_no_module_is_imported():
    pickled = b"\x80\x02cno_such_module\nThing\n)\x81}X\1\0\0\0aK\1sb."
    with pytest.raises(ValueError, match=r"torch\.save did not write"):
        read_torch_file(io.BytesIO(pickled), inert=True)
    assert inert("no_such_module Thing", made=True) == Inert("no_such_module.Thing")


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("os system", False),
        ("posix system", True),
        ("builtins eval", False),
        ("__builtin__ getattr", False),
        ("subprocess Popen", False),
        ("subprocess Popen", True),
        ("numpy.testing._private.utils runstring", False),
        ("torch.hub load", False),
        ("my.code run", False),
        ("my.code Class.method", False),
        ("my.code Class.method", True),
    ],
)
def test_functions_and_classes_that_run_programs_are_refused(name, made):
    with pytest.raises(AsksForCode):
        inert(name, made=made)


@pytest.mark.parametrize("call", [(os.system, "true"), (subprocess.Popen, "true"), (eval, "1")])
def test_a_call_in_a_file_is_refused(call):
    class Calls:
        def __reduce__(self):
            return call[0], call[1:]

    buffer = io.BytesIO()
    torch.save({"a": Calls(), "weights": torch.zeros(1)}, buffer)
    buffer.seek(0)
    with pytest.raises(AsksForCode):
        read_torch_file(buffer, inert=True)


def test_a_file_that_only_this_package_writes_holds_no_such_objects():
    buffer = io.BytesIO()
    torch.save({"a": argparse.Namespace()}, buffer)
    buffer.seek(0)
    with pytest.raises(AsksForCode, match=r"argparse\.Namespace"):
        read_torch_file(buffer)
