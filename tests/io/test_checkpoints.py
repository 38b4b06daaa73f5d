"""Weights from files that are not trusted: all of them or none, and no code."""

import argparse
import copy
import os
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from d3fast.detox import save_weights
from d3fast.models import load_weights


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


def hooked():
    """Computes something else than its class."""
    model = net()
    model[0].register_forward_hook(os.getpid)
    return model


class Tied(nn.Module):
    """Embedding and head share one weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.lm = nn.Linear(4, 5, bias=False)
        self.lm.weight = self.embedding.weight


def same(a, b):
    return all(torch.equal(v, b.state_dict()[n]) for n, v in a.state_dict().items())


def refused(model, path, message):
    """Loading raises one line that names the file, and the model is as it was."""
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(model, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert same(model, before)


def changed(**changes):
    """A state dict with some values replaced; ``None`` takes them out."""
    state = {**net(1).state_dict(), **{n.replace("_", ".", 1): v for n, v in changes.items()}}
    return {name: value for name, value in state.items() if value is not None}


def test_safetensors_as_save_weights_writes_them(tmp_path):
    source, model = net(1), net()
    save_weights(source, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert same(model, source)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".tar", ".PT"])
@pytest.mark.parametrize("new_format", [True, False])
def test_files_of_torch_save(tmp_path, suffix, new_format):
    source, model, path = net(1), net(), tmp_path / f"w{suffix}"
    torch.save(source.state_dict(), path, _use_new_zipfile_serialization=new_format)
    load_weights(model, str(path))
    assert same(model, source)


WRAPPED = {
    "nothing": (lambda s: s, []),
    "state_dict": (lambda s: {"state_dict": s, "optimizer": {"state": {}}}, ["'state_dict'"]),
    "model_state_dict": (lambda s: {"model_state_dict": s}, ["'model_state_dict'"]),
    "net": (lambda s: {"net": s, "acc": 91.0}, ["'net'"]),
    "nested": (lambda s: {"model": {"state_dict": s}}, ["'state_dict' in 'model'"]),
    "DataParallel": (lambda s: prefixed(s, "module."), ["begin with 'module.'"]),
    "compiled": (lambda s: prefixed(s, "_orig_mod.module."), ["'_orig_mod.module.'"]),
    "both": (
        lambda s: {"model": prefixed(s, "module.")},
        ["those of 'model'", "begin with 'module.'"],
    ),
    "Lightning": (
        lambda s: {
            "state_dict": {**prefixed(s, "model."), "loss.weight": torch.ones(9)},
            "hyper_parameters": argparse.Namespace(lr=0.1),
        },
        [
            "'state_dict'",
            "begin with 'model.'",
            "1 tensors of the file under other names are not read",
            "objects of 'argparse.Namespace', which are not made",
        ],
    ),
    "compiled inside Lightning": (
        lambda s: {"state_dict": prefixed(s, "net._orig_mod.")},
        ["'state_dict'", "'net._orig_mod.'"],
    ),
    "a compiled submodule": (
        lambda s: {n.replace("0.", "0._orig_mod.", 1): v for n, v in s.items()},
        ["wrappers of submodules"],
    ),
    "EMA of timm": (
        lambda s: {"state_dict": net(7).state_dict(), "state_dict_ema": s},
        ["'state_dict_ema', an average over training (EMA); 'state_dict' beside them, not read"],
    ),
    "EMA of other names": (
        lambda s: {"state_dict": s, "state_dict_ema": {"shadow": torch.zeros(1)}},
        ["'state_dict'; 'state_dict_ema' beside them, not read"],
    ),
    "Parameters": (
        lambda s: OrderedDict(
            (n, nn.Parameter(v) if v.is_floating_point() else v) for n, v in s.items()
        ),
        [],
    ),
    "old": (
        lambda s: {n: v for n, v in s.items() if not n.endswith("num_batches_tracked")},
        [],
    ),
    "settings between the weights": (lambda s: {**s, "epoch": 3, "args": None}, []),
}


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize("case", WRAPPED)
def test_what_training_scripts_put_around_the_weights_is_removed_and_said(tmp_path, case):
    wrap, notes = WRAPPED[case]
    source, model = net(1), net()
    torch.save(wrap(source.state_dict()), tmp_path / "w.pt")
    read = load_weights(model, tmp_path / "w.pt")
    assert same(model, source)
    assert len(read.notes) == len(notes), read.notes
    assert all(part in note for part, note in zip(notes, read.notes, strict=True)), read.notes


def test_the_names_and_dtypes_of_the_file_are_returned(tmp_path):
    torch.save(prefixed(net(1).half().state_dict(), "module."), tmp_path / "w.pt")
    read = load_weights(net(), tmp_path / "w.pt")
    assert read.names["3.bias"] == "module.3.bias"
    assert read.dtypes["3.bias"] == torch.float16


def test_a_prefix_that_the_model_has_too_is_part_of_the_name(tmp_path):
    source, model = nn.DataParallel(net(1)), nn.DataParallel(net())
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert same(model, source)


def test_tensors_stay_where_they_were_and_know_that_they_changed(tmp_path):
    torch.save(net(1).state_dict(), tmp_path / "w.pt")
    model = net()
    weight, version = model[3].weight, model[3].weight._version
    load_weights(model, tmp_path / "w.pt")
    assert model[3].weight is weight
    assert weight._version > version
    assert weight.requires_grad
    assert weight.is_leaf


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_tied_weight_may_be_written_once(tmp_path, suffix):
    source, model, path = Tied(), Tied(), tmp_path / f"w{suffix}"
    save_file({"lm.weight": source.lm.weight}, path) if suffix == ".safetensors" else torch.save(
        {"embedding.weight": source.lm.weight}, path
    )
    load_weights(model, path)
    assert same(model, source)
    assert model.lm.weight is model.embedding.weight


def test_a_tied_weight_written_twice_has_to_be_one(tmp_path):
    model, path = Tied(), tmp_path / "w.pt"
    torch.save({"embedding.weight": torch.zeros(5, 4), "lm.weight": torch.ones(5, 4)}, path)
    refused(model, path, "'embedding.weight' and 'lm.weight' differ, in the model they are one")


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_a_narrower_dtype_is_widened(tmp_path, narrow):
    torch.save(net(1).to(narrow).state_dict(), tmp_path / "w.pt")
    model = net()
    load_weights(model, tmp_path / "w.pt")
    assert model[3].weight.dtype == torch.float32
    assert torch.equal(model[3].weight, net(1)[3].weight.to(narrow).float())


MISFITS = {
    "names missing": (changed(**{"3_weight": None}), "does not fit the model: it lacks '3.weight'"),
    "names too many": (
        changed(**{f"{i}_extra": torch.zeros(1) for i in range(9)}),
        "the model has no '0.extra', '1.extra', '2.extra' and 6 more$",
    ),
    "other names": (
        {"a": torch.zeros(1)},
        "it lacks '0.bias', '0.weight', '1.bias' and 5 more; the model has no 'a'$",
    ),
    "nothing": ({}, "it lacks '0.bias'"),
    "another shape": (
        changed(**{"3_weight": torch.zeros(2, 2)}),
        r"'3.weight' has shape \(2, 2\), the model's \(3, 2\)$",
    ),
    "a wider dtype": (
        changed(**{"3_bias": torch.zeros(3, dtype=torch.float64)}),
        "'3.bias' is torch.float64, the model's torch.float32$",
    ),
    "integers": (
        changed(**{"3_bias": torch.zeros(3, dtype=torch.int8)}),
        "'3.bias' is torch.int8, the model's torch.float32$",
    ),
    "8-bit floats": (
        changed(**{"3_bias": torch.zeros(3).to(torch.float8_e4m3fn)}),
        "'3.bias' is torch.float8_e4m3fn, the model's torch.float32$",
    ),
    "NaN": (changed(**{"3_bias": torch.full((3,), float("nan"))}), "'3.bias' holds NaN or inf$"),
    "inf in a buffer": (
        changed(**{"1_running_var": torch.full((2,), float("inf"))}),
        "'1.running_var' holds NaN or inf$",
    ),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_refused(tmp_path, case, suffix):
    state, message = MISFITS[case]
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    refused(net(), path, message)


def _endless():
    held = {}
    held["model"] = held
    return held


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ([torch.zeros(1)], "must hold weights by name, it holds a list$"),
        (torch.zeros(1), "must hold weights by name, it holds a Tensor$"),
        ({1: torch.zeros(1)}, "must hold weights by name, it has the key 1$"),
        ({"epoch": 3}, "'epoch' must be a dense tensor, it is a int$"),
        ({"a": torch.eye(2).to_sparse()}, "'a' must be a dense tensor, it is a sparse tensor$"),
        (
            changed(**{"3_weight": torch.eye(3, 2).to_sparse()}),
            "'3.weight' must be a dense tensor, it is a sparse tensor$",
        ),
        (hooked(), r"it holds an object of torch\.nn.*Sequential: refused\. Read it in a sandbox"),
        ({"model": net()}, r"'model' must be a dense tensor, it is an object of torch.*: refused"),
        (changed(**{"3_bias": torch.zeros(3, device="meta")}), "it is a tensor without values$"),
        (_endless(), "'model' must be a dense tensor, it is a dict$"),
        (
            {**prefixed(net(1).state_dict(), "a."), **prefixed(net(2).state_dict(), "b.")},
            "names of the model are there twice: under 'a.' and 'b.'$",
        ),
    ],
)
def test_other_things_than_weights_are_refused(tmp_path, held, message):
    torch.save(held, tmp_path / "w.pt")
    refused(net(), tmp_path / "w.pt", message)


def test_a_lazy_model_has_to_see_a_batch_first(tmp_path):
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"^'weight' has no shape yet"):
        load_weights(nn.LazyLinear(2), tmp_path / "w.pt")
