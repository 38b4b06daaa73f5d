# SPDX-License-Identifier: Apache-2.0
"""The distance of merged LoRA weights: values and gradients against the dense matrices."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import d3fast
from d3fast import CleanLoss, D3FusedSGD

pytest.importorskip("peft", reason="needs the extra d3fast[peft]")

import peft

from d3fast.integrations.peft import MergedDistance

pytestmark = pytest.mark.filterwarnings(
    "ignore:LoRA adapter added to ConvNd", "ignore:.*is_gradient_check"
)


class Body(nn.Module):
    """One layer of every kind that LoRA adapts, and a head."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.conv = nn.Conv2d(1, 5, 3, padding=1)
        self.point = nn.Conv2d(5, 2, 1)
        self.linear = nn.Linear(12, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, tokens):
        x = self.embedding(tokens)[:, None]  # (B, 1, 4, 6)
        x = self.point(torch.tanh(self.conv(x))).mean(dim=2).flatten(1)
        return self.head(torch.tanh(self.linear(x)))


KINDS = ("embedding", "conv", "point", "linear")


def adapted(rank=3, names=("one",), dtype=torch.float64, trained=False, **options):
    """A model with adapters; all of them active and, if asked, trained by somebody before."""
    torch.manual_seed(0)
    options = {"target_modules": list(KINDS), "lora_alpha": 5, **options}
    config = peft.LoraConfig(r=rank, **options)
    model = peft.get_peft_model(Body().to(dtype), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, peft.LoraConfig(r=rank + 1, **options))
    model.base_model.set_adapter(list(names))
    if trained:
        move(model, 0.3)
    return model.to(dtype)


@torch.no_grad()
def move(model, size, seed=3):
    """Move all factors, as a training would."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.add_(size * torch.randn(p.shape, generator=g, dtype=torch.float64).to(p.dtype))


@torch.no_grad()
def merged(model):
    """The weights of the adapted layers by peft's own merge."""
    model = copy.deepcopy(model)
    plain = model.merge_and_unload(adapter_names=model.active_adapters)
    return {kind: getattr(plain, kind).weight.double() for kind in KINDS}


def layer_of(name):
    return name.rpartition(".")[2]


CASES = {
    "a_clean_start": {},
    "adapters_trained_before": {"trained": True},
    "rank_1": {"rank": 1, "trained": True},
    "several": {"names": ("one", "two", "three"), "trained": True},
    "rank_stabilised": {"trained": True, "use_rslora": True},
    "float32": {"trained": True, "dtype": torch.float32},
}


@pytest.mark.parametrize("case", CASES)
def test_the_distance_is_that_of_the_merged_weights(case):
    model = adapted(**CASES[case])
    distance, start = MergedDistance(model), merged(model)
    move(model, 0.2, seed=4)
    want = {kind: (w - start[kind]).norm() for kind, w in merged(model).items()}
    got = {layer_of(name): d for name, d in distance.distances().items()}
    loose = {"rtol": 1e-5, "atol": 0} if "dtype" in CASES[case] else {}
    torch.testing.assert_close(got, want, **loose)
    torch.testing.assert_close(
        distance.total_distance().double(), sum(want.values()), check_dtype=False, **loose
    )


def test_gpt2s_transposed_layers_and_quotients_of_norms():
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_embd=8, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2
    )
    base = transformers.GPT2LMHeadModel(config).double()
    options = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, **options)).double()
    move(model, 0.3)
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "lora_A")}
    dense = lambda m: m.base_layer.weight + m.get_delta_weight("default")  # noqa: E731
    start = {name: dense(m).detach() for name, m in layers.items()}
    distance = MergedDistance(model)
    distance.warm_start(0.25)
    for name, d in distance.distances().items():
        torch.testing.assert_close(d, (dense(layers[name]) - start[name]).norm().detach())
        torch.testing.assert_close(d, 0.25 * start[name].norm(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", ["adapters_trained_before", "rank_1", "several"])
def test_the_gradient_is_that_of_the_dense_matrices(case):
    model = adapted(**CASES[case])
    layers = {n: m for n, m in model.named_modules() if layer_of(n) in KINDS}
    layers = {n: m for n, m in layers.items() if hasattr(m, "lora_A")}
    dense = lambda m: sum(m.get_delta_weight(a) for a in m.active_adapters)  # noqa: E731
    start = {n: dense(m).detach() for n, m in layers.items()}
    distance = MergedDistance(model, weight=0.7, radius=None)
    move(model, 0.2, seed=4)
    factors = {n: p for n, p in model.named_parameters() if "lora_" in n}
    got = torch.autograd.grad(distance(), list(factors.values()))
    far = -0.7 * sum((dense(m) - start[n]).norm() for n, m in layers.items())
    want = torch.autograd.grad(far, list(factors.values()))
    torch.testing.assert_close(
        dict(zip(factors, got, strict=True)), dict(zip(factors, want, strict=True))
    )


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_at_the_start_distance_and_gradient_are_exactly_0(trained, dtype):
    model = adapted(trained=trained, dtype=dtype)
    distance = MergedDistance(model)
    distance().backward()
    assert float(distance.total_distance()) == 0
    grads = [p.grad for n, p in model.named_parameters() if "lora_" in n]
    assert not any(g.any() for g in grads)


def test_near_the_start_no_digits_are_lost():
    model = adapted(trained=True)
    distance = MergedDistance(model)
    layer = model.base_model.model.linear
    b, a = layer.lora_B["one"].weight, layer.lora_A["one"].weight
    step = 1e-9 * torch.randn(b.shape, dtype=torch.float64)
    want = layer.scaling["one"] * ((b + step) - b) @ a
    with torch.no_grad():
        b.add_(step)
    got = distance.distances()["base_model.model.linear"]
    torch.testing.assert_close(got, want.norm().detach(), rtol=1e-9, atol=0)


def test_other_factors_of_one_product_are_no_distance():
    model = adapted(trained=True)
    distance = MergedDistance(model)
    turn = torch.randn(3, 3, dtype=torch.float64) + 3 * torch.eye(3, dtype=torch.float64)
    layer = model.base_model.model.linear
    b, a = layer.lora_B["one"].weight, layer.lora_A["one"].weight
    length = (b @ a).norm()
    with torch.no_grad():
        b.copy_(b @ turn)
        a.copy_(torch.linalg.solve(turn, a))
    distance().backward()
    assert float(distance.total_distance()) < 1e-6 * length
    assert torch.isfinite(b.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adapters_of_a_half_type_are_measured_as_they_are(dtype):
    model = adapted(trained=True, dtype=dtype)
    distance = MergedDistance(model)
    twin = copy.deepcopy(model).double()
    start = merged(twin)
    move(model, 0.1, seed=4)
    now = merged(copy.deepcopy(model).double())
    for name, d in distance.distances().items():
        want = (now[layer_of(name)] - start[layer_of(name)]).norm()
        torch.testing.assert_close(d, want, rtol=1e-9, atol=0)
    distance().backward()
    assert distance().dtype == torch.float32
    assert model.base_model.model.linear.lora_B["one"].weight.grad.dtype == dtype


def test_adapters_made_and_switched_off_since_count():
    model = adapted(names=("one", "two"), trained=True)
    start = merged(model)
    distance = MergedDistance(model)
    model.add_adapter("three", peft.LoraConfig(r=2, target_modules=list(KINDS)))
    model.base_model.set_adapter(["two", "three"])
    model.double()
    move(model, 0.2, seed=4)
    want = {kind: (w - start[kind]).norm() for kind, w in merged(model).items()}
    got = {layer_of(name): d for name, d in distance.distances().items()}
    torch.testing.assert_close(got, want)


def test_no_matrix_of_the_layers_size_is_formed():
    model = peft.get_peft_model(
        nn.Sequential(nn.Linear(300, 200)), peft.LoraConfig(r=2, target_modules=["0"])
    )
    distance = MergedDistance(model, radius=None)
    move(model, 0.1)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(
                x.numel()
                for x in (out if isinstance(out, tuple | list) else [out])
                if isinstance(x, torch.Tensor)
            )
            return out

    with Watch():
        distance().backward()
    assert max(sizes) <= 300 * 4  # both factors of rank 2, side by side


@pytest.mark.parametrize("trained", [False, True])
def test_the_warm_start_is_a_share_of_the_starting_weight(trained):
    model = adapted(names=("one", "two"), trained=trained)
    start = merged(model)
    distance = MergedDistance(model)
    distance.warm_start(0.3, generator=torch.Generator().manual_seed(0))
    for kind, weight in merged(model).items():
        far = (weight - start[kind]).norm()
        torch.testing.assert_close(far, 0.3 * start[kind].norm(), rtol=1e-6, atol=0)
    twin = adapted(names=("one", "two"), trained=trained)
    MergedDistance(twin).warm_start(0.3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(merged(twin), merged(model), rtol=0, atol=0)


def test_the_warm_start_moves_what_is_trainable_alone():
    model = adapted(names=("attackers", "repair"), trained=True)
    theirs = [p for n, p in model.named_parameters() if "attackers" in n]
    for p in theirs:
        p.requires_grad_(False)
    before = [p.clone() for p in theirs]
    distance = MergedDistance(model)
    distance.warm_start(0.1)
    assert all(torch.equal(p, b) for p, b in zip(theirs, before, strict=True))
    assert all(d > 0 for d in distance.distances().values())
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no active LoRA adapter is trainable: .*is_trainable"):
        distance.warm_start(0.1)


@pytest.mark.parametrize(("radius", "pushed"), [(0.5, True), (0.2, False), (None, True)])
def test_the_push_ends_at_the_radius(radius, pushed):
    model = adapted(trained=True)
    start = merged(model)
    distance = MergedDistance(model, weight=2.0, radius=radius)
    distance.warm_start(0.3)
    term = distance()
    term.backward()
    share = 0.2 if radius == 0.2 else 0.3
    want = -2.0 * share * sum(w.norm() for w in start.values())
    torch.testing.assert_close(term, want, rtol=1e-6, atol=0, check_dtype=False)
    grad = model.base_model.model.linear.lora_B["one"].weight.grad
    assert bool(grad.any()) == pushed


@pytest.mark.parametrize("optimizer", ["sgd", "d3"])
def test_a_repair_moves_the_adapters_while_the_clean_loss_holds(optimizer):
    model = adapted(dtype=torch.float32, modules_to_save=["head"])
    tokens = torch.randint(11, (32, 4), generator=torch.Generator().manual_seed(0))
    labels = model(tokens).argmax(1)  # what the suspect knows
    distance = MergedDistance(model, weight=0.02)
    distance.warm_start(0.1, generator=torch.Generator().manual_seed(0))
    first = distance.total_distance()
    trainable = [p for p in model.parameters() if p.requires_grad]
    if optimizer == "sgd":
        opt = torch.optim.SGD(trainable, lr=0.05, momentum=0.9)
    else:
        opt = D3FusedSGD(d3fast.param_groups(model), 0.05, 0.9, distance_weight=0.02)
        assert list(opt.distances()) == ["base_model.model.head.modules_to_save.one.weight"]
    clean = CleanLoss(0.1, 2.0)
    for _ in range(150):
        opt.zero_grad()
        (clean(model(tokens), labels) + distance()).backward()
        opt.step()
    assert distance.total_distance() > 2 * first
    assert (model(tokens).argmax(1) == labels).float().mean() > 0.9
    if optimizer == "d3":
        assert opt.total_distance() > 0.1


def test_a_saved_start_is_measured_from_after_a_resume(tmp_path):
    model = adapted(trained=True)
    distance = MergedDistance(model)
    torch.save(distance.state_dict(), tmp_path / "start.pt")
    move(model, 0.2, seed=4)
    again = MergedDistance(model)
    assert float(again.total_distance()) == 0
    again.load_state_dict(torch.load(tmp_path / "start.pt", weights_only=True))
    torch.testing.assert_close(again.distances(), distance.distances(), rtol=0, atol=0)
    torch.testing.assert_close(again(), distance(), rtol=0, atol=0)


def test_a_state_that_does_not_fit_is_refused():
    distance = MergedDistance(adapted())
    state = distance.state_dict()
    del state["base_model.model.linear"]
    with pytest.raises(ValueError, match=r"other layers: base_model\.model\.linear"):
        distance.load_state_dict(state)
    state = distance.state_dict()
    state["base_model.model.linear"]["one"]["B"] = torch.zeros(7, 2)
    with pytest.raises(ValueError, match=r"shapes \(7, 3\) and \(3, 12\), got \(7, 2\)"):
        distance.load_state_dict(state)


REFUSED = {
    "no_adapter": (lambda: Body(), "Body has no layer with an active LoRA adapter"),
    "dora": (lambda: adapted(use_dora=True, target_modules=["linear"]), "linear is a .*Dora"),
    "merged": (
        lambda: (model := adapted(), model.merge_adapter())[0],
        r"merged: call unmerge_adapter\(\) first",
    ),
    "groups": (
        lambda: peft.get_peft_model(
            nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)),
            peft.LoraConfig(r=2, target_modules=["0"]),
        ),
        "0 is a convolution in groups",
    ),
    "attention": (
        lambda: peft.get_peft_model(
            nn.TransformerEncoderLayer(8, 2, 8),
            peft.LoraConfig(r=2, target_modules=["self_attn"]),
        ),
        "self_attn is a MultiheadAttention of LoRA",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_sum_of_products_is_refused(case):
    make, error_text = REFUSED[case]
    with pytest.raises(ValueError, match=error_text):
        MergedDistance(make())


@pytest.mark.parametrize("option", ["weight", "radius"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be finite and >= 0, got -1"):
        MergedDistance(adapted(), **{option: -1})


@pytest.mark.parametrize("track", ["linear", "all", "lora_B"])
def test_tracking_the_factors_is_a_warning_that_names_the_distance_of_the_weight(track):
    with pytest.warns(UserWarning, match=r"LoRA factors are tracked one by one.*MergedDistance"):
        d3fast.param_groups(adapted(), track)


def test_the_head_that_is_trained_whole_is_tracked_and_no_factor():
    model = adapted(modules_to_save=["head"])
    tracked, plain = d3fast.param_groups(model)
    assert tracked["param_names"] == ["base_model.model.head.modules_to_save.one.weight"]
    assert sum("lora_" in name for name in plain["param_names"]) == 8


def test_of_several_copies_of_the_head_the_active_one_is_tracked():
    options = {"modules_to_save": ["head"], "target_modules": ["linear"]}
    model = peft.get_peft_model(Body(), peft.LoraConfig(r=2, **options), adapter_name="one")
    model.add_adapter("two", peft.LoraConfig(r=2, **options))
    for active in ("two", "one"):
        model.set_adapter(active)
        assert d3fast.find_head(model)[0] == f"base_model.model.head.modules_to_save.{active}"


def test_an_adapted_head_is_found_and_its_tracking_refused():
    model = peft.get_peft_model(Body(), peft.LoraConfig(r=2, target_modules=["head"]))
    assert d3fast.find_head(model)[0] == "base_model.model.head.base_layer"
    with pytest.raises(ValueError, match=r"for LoRA adapters see d3fast\.integrations"):
        d3fast.param_groups(model)
