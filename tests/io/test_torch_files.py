"""What ``torch.save`` wrote comes back as ``torch.load`` gives it, bit by bit."""

import io
import pickle
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch
from torch import nn

from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.pickles import AsksForCode
from d3fast.io.torch_files import read_torch_file

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.bool,
]
FORMATS = [{}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}]


def _file(held, **options):
    buffer = io.BytesIO()
    torch.save(held, buffer, **options)
    buffer.seek(0)
    return buffer


def _tensors():
    base = torch.arange(24.0).reshape(4, 6)
    flat = torch.arange(10.0)
    return {
        **{str(dtype): (torch.arange(6) % 2).reshape(2, 3).to(dtype) for dtype in DTYPES},
        "transposed": base.T,
        "a part": base[1:3, 2:5],
        "every second": base[:, ::2],
        "one number often": torch.tensor(3.0).expand(2, 3),
        "a row often": flat[:3].expand(4, 3),
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "no dimension": torch.tensor(7.0),
        "nothing": torch.empty(0, 3),
        "a parameter": nn.Parameter(base.clone()),
        "a buffer": nn.Buffer(base.clone()),
        "shares": flat[2:6],
        "shares too": flat[4:],
    }


@pytest.mark.parametrize("options", FORMATS, ids=["zip", "protocol 4", "legacy"])
def test_tensors_of_every_kind(options):
    given = _tensors()
    held = read_torch_file(_file(given, **options))
    assert held.keys() == given.keys()
    for name, stored in held.items():
        wanted = given[name].detach()
        assert isinstance(stored, TensorEntry), name
        assert (stored.shape, stored.dtype) == (wanted.shape, wanted.dtype), name
        got = stored.read()
        assert got.dtype == wanted.dtype, name
        assert got.tolist() == wanted.tolist() if wanted.numel() else got.shape == wanted.shape, (
            name
        )


@pytest.mark.parametrize("options", FORMATS, ids=["zip", "protocol 4", "legacy"])
def test_what_else_is_in_checkpoints(options):
    plain = {
        "epoch": 3,
        "lr": 0.1,
        "name": "é",
        "none": None,
        "yes": True,
        0: [1, (2, -(2**70))],
        "best": float("inf"),
        "counts": Counter({3: 1}),
        "ordered": OrderedDict(a=1),
        "shape": torch.Size([1, 2]),
        "dtype": torch.float16,
        "huge": 2**2000,
    }
    assert read_torch_file(_file(plain, **options)) == plain
    others = {"set": {1, 2}, "bytes": b"x", "device": torch.device("cpu"), "complex": 1j}
    if options.get("pickle_protocol") != 4:  # which has instructions of its own for sets
        held = read_torch_file(_file(others, **options))
        assert all(isinstance(held[name], OtherEntry) for name in ("set", "device", "complex"))


def test_the_state_of_an_optimizer_and_a_schedule_is_no_obstacle():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
    model(torch.zeros(1, 2)).sum().backward()
    optimizer.step()
    held = read_torch_file(
        _file(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            }
        )
    )
    assert held["model"]["weight"].read().equal(model.weight)
    assert isinstance(held["optimizer"]["state"][0]["exp_avg"], TensorEntry)


def test_a_tensor_with_attributes_is_that_tensor():
    tagged = torch.arange(3.0)
    tagged.tag = "x"
    parameter = nn.Parameter(torch.arange(2.0))
    parameter.tag = "x"
    held = read_torch_file(_file({"a": tagged, "b": parameter}))
    assert held["a"].read().tolist() == [0, 1, 2]
    assert held["b"].read().tolist() == [0, 1]


@pytest.mark.parametrize("imaginary", ["negated", "conjugated"])
def test_lazy_signs_are_no_weights(imaginary):
    z = torch.zeros(3, dtype=torch.complex64)
    held = read_torch_file(_file({"a": z.conj() if imaginary == "conjugated" else z.conj().imag}))
    assert held["a"] == OtherEntry("a negated or conjugated tensor")


def test_a_storage_that_nobody_asks_for_is_not_read():
    whole = _file({"model": torch.arange(3.0), "optimizer": torch.zeros(1000)})
    lacking = io.BytesIO()
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(lacking, "w") as new:
        for name in old.namelist():
            if not name.endswith("data/1"):
                new.writestr(name, old.read(name))
    lacking.seek(0)
    held = read_torch_file(lacking)
    assert held["model"].read().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="its storage '1' is missing"):
        held["optimizer"].read()


def test_no_more_is_read_than_the_numbers_that_a_tensor_has():
    apart = torch.arange(10.0**6).as_strided((2,), (999_999,))
    held = read_torch_file(_file({"a": apart}))
    with pytest.raises(ValueError, match="its 2 numbers are spread over 1000000"):
        held["a"].read()


@pytest.mark.parametrize("name", ["os system", "torch.hub load", "torch save", "torch.nn Linear"])
def test_any_other_name_is_refused_when_it_is_met(name):
    module, attribute = name.split()
    pickled = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(AsksForCode, match=f"{module}.{attribute}"):
        read_torch_file(io.BytesIO(b"\x80\x02" + pickled))


def test_a_list_handed_over_a_million_times_is_copied_once():
    pairs = b"](" + b"K\1K\2\x86" * 50_000 + b"eq\1"
    calls = b"0ccollections\nOrderedDict\nq\2" + b"h\2h\1\x85R" * 20_000
    content = b"\x80\x02(" + pairs + calls.removeprefix(b"0") + b"t."
    with pytest.raises(ValueError, match=r"none of torch\.save|instructions"):
        read_torch_file(io.BytesIO(content))


def test_bools_other_than_0_and_1_are_true():
    content = _file({"a": torch.tensor([True, False, True])}).getvalue()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith("data/0"))
        names = len(info.filename)
    damaged = bytearray(content)
    extra = int.from_bytes(damaged[info.header_offset + 28 : info.header_offset + 30], "little")
    damaged[info.header_offset + 30 + names + extra] = 7
    held = read_torch_file(io.BytesIO(damaged))
    assert held["a"].read().view(torch.uint8).tolist() == [1, 0, 1]


def test_what_protocols_torch_save_does_not_use_is_refused():
    with pytest.raises(ValueError, match=r"unlike a file of torch\.save"):
        read_torch_file(io.BytesIO(pickle.dumps({}, 0)))
