# SPDX-License-Identifier: Apache-2.0
"""Scaling estimates against the optimizer's own state and against built models."""

import warnings
from unittest import mock

import pytest
import torch
from torch import distributed as dist
from torch import nn

import d3fast
from benchmarks.shapes import ParameterList
from benchmarks.studies import scaling
from benchmarks.studies.counting import Counts
from d3fast import D3FusedSGD
from d3fast.optim.backends import shard_messages

FP32, BF16 = scaling.PRECISIONS


class Tiny(nn.Module):
    """A decoder with the names of the large ones."""

    def __init__(self):
        super().__init__()
        block = {
            "mlp": nn.ModuleDict({"up_proj": nn.Linear(6, 10, bias=False)}),
            "self_attn": nn.ModuleDict({"q_proj": nn.Linear(6, 7, bias=False)}),
            "input_layernorm": nn.LayerNorm(6, bias=False),
        }
        self.model = nn.ModuleDict(
            {"embed_tokens": nn.Embedding(11, 6), "layers": nn.ModuleList([nn.ModuleDict(block)])}
        )
        self.lm_head = nn.Linear(6, 11, bias=False)


def listed(model):
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    return ParameterList("tiny", shapes, "lm_head.weight")


def groups(model, what):
    chosen = scaling.tracked_names(listed(model), what)
    return d3fast.param_groups(model, lambda name, module, param: name in chosen)


def part_of(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def kept(opt):
    """Bytes of everything with a parameter's shape, as the optimizer holds it here."""
    total = dict.fromkeys(FP32.state(True), 0)
    names = {
        "momentum_buffer": "momentum",
        "reference": "reference",
        "compensation": "compensation",
    }
    for group in opt.param_groups:
        for p in group["params"]:
            total["parameters"] += part_of(p).nbytes
            total["gradients"] += part_of(p).nbytes
            for key, value in opt.state[p].items():
                if key in names:
                    total[names[key]] += part_of(value).nbytes
    return total


@pytest.mark.parametrize("precision", scaling.PRECISIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("what", scaling.TRACKED)
def test_on_one_gpu_the_state_is_the_optimizers_own(what, precision):
    model = Tiny().to(precision.dtype)
    opt = D3FusedSGD(groups(model, what), lr=0.1, momentum=0.9, backend="reference")
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    opt.step()
    model_, tracked = listed(model), scaling.tracked_names(listed(model), what)
    assert scaling.state_bytes(model_, tracked, precision, 1) == kept(opt)


@pytest.fixture
def ranks():
    """Makes this process the first of so many, of which the others are not there."""
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    mesh = pytest.importorskip("torch.distributed.device_mesh")

    def begin(world):
        dist.init_process_group("fake", rank=0, world_size=world, store=fake.FakeStore())
        return mesh.init_device_mesh("cpu", (world,))

    yield begin
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize("precision", scaling.PRECISIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("gpus", [2, 4, 512])
def test_on_several_it_is_that_of_the_first_rank_under_fsdp2(gpus, precision, ranks):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    model = Tiny().to(precision.dtype)
    model_ = listed(model)
    mesh = ranks(gpus)
    fsdp.fully_shard(model, mesh=mesh)
    opt = D3FusedSGD(groups(model, "all linear"), lr=0.1, momentum=0.9, backend="reference")
    opt.state_dict()  # makes what the first step would
    tracked = scaling.tracked_names(model_, "all linear")
    assert scaling.state_bytes(model_, tracked, precision, gpus) == kept(opt)


@pytest.mark.parametrize("what", scaling.TRACKED)
def test_the_message_is_what_a_step_sends(what, monkeypatch, ranks):
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    model, sent = Tiny(), []
    tracked = scaling.tracked_names(listed(model), what)
    fsdp.fully_shard(model, mesh=ranks(2))
    opt = D3FusedSGD(groups(model, what), lr=0.1, momentum=0.9)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    opt.step()  # compares and measures
    add_up = lambda numbers, mesh: sent.append(numbers.nbytes) or mock.Mock()  # noqa: E731
    monkeypatch.setattr(shard_messages, "Started", add_up)
    opt.step()
    assert sent == [scaling.message_bytes(tracked)]


@pytest.mark.parametrize("make", scaling.MODELS, ids=lambda make: make.__name__)
def test_the_shapes_and_tracked_weights_are_those_of_transformers_models(make):
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    ours = make()
    at = "model.layers.0"
    width, mlp = ours.shapes[f"{at}.mlp.down_proj.weight"]
    head = {"1B": 64}.get(ours.name, 128)
    config = transformers.LlamaConfig(
        vocab_size=128256,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=sum("q_proj" in name for name in ours.shapes),
        num_attention_heads=ours.shapes[f"{at}.self_attn.q_proj.weight"][0] // head,
        num_key_value_heads=8,
        head_dim=head,
        tie_word_embeddings="lm_head.weight" not in ours.shapes,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == ours.shapes
    tracks = {"head": "head", "MLP": r"\.mlp\.(gate|up|down)_proj\.weight$", "all linear": "linear"}
    for what, track in tracks.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the 1B model's head is tied
            names = d3fast.param_groups(model, track)[0]["param_names"]
        assert set(names) == scaling.tracked_names(ours, what)


def model_of(*shapes):
    named = {f"layer{i}.mlp.weight": shape for i, shape in enumerate(shapes)}
    return ParameterList("some", named, next(iter(named)))


def test_the_kernels_bytes_are_those_of_the_design():
    model = model_of((10, 10), (6, 5))
    all_of, none = set(model.shapes), set()
    from_memory = lambda names, p: scaling.kernel_bytes(model, names, p, 1, cache=0)  # noqa: E731
    assert from_memory(all_of, FP32) == 32 * 130
    assert scaling.kernel_bytes(model, all_of, FP32, 1, cache=1e9) == 24 * 130
    assert from_memory(none, FP32) == 20 * 130
    assert from_memory({"layer1.mlp.weight"}, FP32) == 20 * 100 + 32 * 30
    assert from_memory(all_of, BF16) == 24 * 130


def test_on_several_gpus_the_second_pass_finds_a_cache_that_holds_all_tensors_or_nothing():
    model = model_of((10, 10), (6, 5))
    held = (5 * 10 + 3 * 5) * 16
    of_two = lambda cache: scaling.kernel_bytes(model, set(model.shapes), FP32, 2, cache)  # noqa: E731
    assert of_two(held) == 24 * 65
    assert of_two(held - 1) == 32 * 65


def test_an_all_reduce_is_nothing_on_one_gpu_and_latency_on_many():
    device, assumed = scaling.DEVICES[0], scaling.Assumed(latency=1e-6)
    seconds = lambda size, gpus: scaling.all_reduce_seconds(size, gpus, device, assumed)  # noqa: E731
    assert seconds(1e9, 1) == 0
    assert seconds(0, 512) == pytest.approx(18e-6)
    assert seconds(450e9, 8) == pytest.approx(2 * 7 / 8 + 6e-6)
    assert seconds(50e9, 16) == pytest.approx(2 * 15 / 16 + 8e-6)


def test_a_plain_step_is_bytes_where_parts_are_large_and_launches_where_small():
    counts = {True: Counts(100, 16, 8, 10, 3, 5), False: Counts(40, 0, 4, 7, 0, 1)}
    large, small = model_of((2**20, 48), (10, 10)), model_of((4, 4), (2, 4))
    got = scaling.plain_step(large, {large.head}, counts, 1)
    n = 48 * 2**20
    assert got == {
        "asked": 100 * n + 40 * 100,
        "launches": 5 + 1 + 10 + 2 * 3 + 7,
        "passing": 24 * n,
    }
    assert scaling.plain_step(small, set(small.shapes), counts, 4)["launches"] == 6 + 20
