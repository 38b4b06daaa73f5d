"""NAD: the attention loss by hand, which layers it takes, and what it does to the student."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from d3fast.defenses import FineTuning
from d3fast.defenses.nad import NAD, attention, attention_distillation, find_layers
from d3fast.models.preact_resnet import PreActResNet
from d3fast.models.vgg import VGG
from d3fast.models.vit import VisionTransformer

SHORT = NAD(epochs=2, teacher_epochs=1)


def _loader(seed=0, size=8):
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(24, 1, size, size, generator=draw)
    return [(images[i : i + 12], torch.arange(12) % 3) for i in (0, 12)]


def _model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        )


def _hooks(model):
    return [h for module in model.modules() for h in module._forward_hooks.values()]


def test_attention_of_maps_is_the_sum_of_squares_over_channels_of_norm_one():
    maps = torch.tensor([[[[1.0, -2.0]], [[1.0, 0.0]]], [[[0.0, 0.0]], [[0.0, 5.0]]]])
    expected = torch.tensor([[2.0, 4.0], [0.0, 1.0]])
    expected[0] /= 20**0.5
    torch.testing.assert_close(attention(maps), expected)


def test_attention_of_tokens_is_the_sum_of_squares_over_their_width():
    tokens = torch.tensor([[[3.0, 0.0], [0.0, 2.0]]])
    torch.testing.assert_close(attention(tokens), torch.tensor([[9.0, 4.0]]) / 97**0.5)


def test_a_layer_that_is_silent_has_attention_zero_and_no_nan():
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    attention(maps).sum().backward()
    assert torch.equal(attention(maps), torch.zeros(1, 9))
    assert bool(maps.grad.isfinite().all())


def test_the_loss_is_cross_entropy_plus_the_weighted_mean_square_between_maps():
    student, teacher = _model(1), _model(2).train()
    images, labels = _loader()[0]
    twin = copy.deepcopy(student)
    gradients = attention_distillation(teacher, {"1": 7.0, "5": 11.0})
    _, _, value = gradients(student, images, labels, nn.CrossEntropyLoss())

    def maps(model):
        deep = functional.relu(model[4](model[3](functional.relu(model[1](model[0](images))))))
        return model[1](model[0](images)), deep

    expected = functional.cross_entropy(twin(images), labels)
    for beta, mine, wanted in zip((7.0, 11.0), maps(twin), maps(teacher.eval()), strict=True):
        a, t = (m.square().sum(1).flatten(1) for m in (mine, wanted))
        a, t = (m / m.norm(dim=1, keepdim=True) for m in (a, t))
        expected = expected + beta * ((a - t.detach()) ** 2).sum() / a.numel()
    torch.testing.assert_close(value, expected)
    expected.backward()
    for ours, theirs in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in teacher.parameters())


def test_without_weight_on_attention_it_is_fine_tuning_bit_for_bit():
    defense = NAD(epochs=1, teacher_epochs=2, lr=0.05, betas=(0.0, 0.0, 0.0), weight_decay=5e-4)
    ours = defense(_model(), _loader(), _loader(1), progress=False)
    theirs = FineTuning(epochs=1, lr=0.05)(_model(), _loader(), _loader(1), progress=False)
    assert ours.history == theirs.history
    for name, tensor in ours.model.state_dict().items():
        assert torch.equal(tensor, theirs.model.state_dict()[name]), name


def test_the_student_ends_nearer_to_the_teachers_attention_than_plain_fine_tuning_does():
    model = _model()
    teacher = FineTuning(epochs=1)(model, _loader(), None, progress=False).model
    defense = NAD(epochs=20, teacher_epochs=1, betas=(5.0, 5.0, 5.0))
    distilled = defense(model, _loader(), None, progress=False)
    tuned = FineTuning(epochs=20)(model, _loader(), None, progress=False)

    @torch.no_grad()
    def distance(other):
        images = torch.cat([batch for batch, _ in _loader()])
        both = (nn.Sequential(*list(m)[:6])(images) for m in (other, teacher))
        return functional.mse_loss(*map(attention, both))

    assert distance(distilled.model) < 0.5 * distance(tuned.model)


def test_no_hook_is_left_and_none_is_there_between_batches():
    left = []
    defense = NAD(epochs=2, teacher_epochs=1, on_epoch=lambda _, m: left.extend(_hooks(m)))
    model = _model()
    result = defense(model, _loader(), None, progress=False)
    assert not left + _hooks(result.model) + _hooks(model)


def test_no_hook_is_left_after_an_error():
    student, teacher = _model(), _model()
    images, labels = _loader()[0]

    def failing(logits, labels):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        attention_distillation(teacher, {"1": 1.0})(student, images, labels, failing)
    with pytest.raises(RuntimeError):
        find_layers(student, torch.rand(1, 3, 8, 8), 3)
    assert not _hooks(student) + _hooks(teacher)


def test_layers_are_the_last_of_every_size_that_has_more_than_one_pixel():
    assert find_layers(_model(), torch.zeros(2, 1, 8, 8), 3) == ("2", "3", "5")
    assert find_layers(_model(), torch.zeros(2, 1, 8, 8), 2) == ("3", "5")
    assert find_layers(_model(), torch.zeros(2, 1, 6, 6), 3) == ("2", "3")  # then 1 x 1


def test_a_module_that_runs_several_times_is_no_layer():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 2, 3), relu)
    assert find_layers(model, torch.zeros(1, 1, 8, 8), 3) == ("0", "2")


def test_finding_layers_changes_neither_modes_nor_statistics():
    model = _model().train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    find_layers(model, torch.rand(2, 1, 8, 8), 3)
    assert (model[0].training, model[1].training) == (True, False)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        (
            PreActResNet(3, 1, width=4, blocks=(1, 1, 1)),
            ("blocks.1.norm1", "blocks.2.norm1", "norm"),
        ),
        (VGG(3, 1, stages=((4, 1), (4, 1), (4, 1))), ("layers.6", "layers.10", "layers")),
        (
            VisionTransformer(3, 1, image_size=16, patch=4, width=8, depth=4, heads=2),
            ("blocks.1", "blocks.2", "blocks.3"),
        ),
        (VisionTransformer(3, 1, image_size=16, patch=4, width=8, depth=1, heads=2), ("blocks.0",)),
    ],
    ids=["preact_resnet", "vgg", "vit", "shallow vit"],
)
def test_every_architecture_of_the_package_can_be_distilled(model, layers):
    assert find_layers(model, torch.zeros(2, 1, 16, 16), 3) == layers
    result = NAD(epochs=1, teacher_epochs=1)(model, _loader(size=16), None, progress=False)
    assert len(result.history) == 1


def test_fewer_layers_take_the_last_betas():
    defense = NAD(betas=(1.0, 2.0, 3.0, 4.0))
    weights = defense._weights(_model(), _loader(), torch.device("cpu"))
    assert weights == {"2": 2.0, "3": 3.0, "5": 4.0}


def test_a_network_without_maps_is_told_to_name_layers():
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(ValueError, match=r"Sequential has no layer .* name some with layers="):
        SHORT(mlp, _loader(), None, progress=False)


@pytest.mark.parametrize(
    ("layer", "error_text"),
    [
        ("nowhere", "layers must name modules of Sequential, got .nowhere."),
        ("8", r"layer '8' must return \(N, C, H, W\) or \(N, T, D\), got \(12, 3\)"),
    ],
)
def test_a_layer_that_will_not_do_is_named(layer, error_text):
    with pytest.raises(ValueError, match=error_text):
        NAD(epochs=1, teacher_epochs=1, betas=(1.0,), layers=(layer,))(
            _model(), _loader(), None, progress=False
        )


def test_a_layer_that_does_not_run_is_named():
    model = _model()
    model[0].spare = nn.Identity()
    with pytest.raises(ValueError, match=r"forward pass does not call layer '0\.spare'"):
        NAD(epochs=1, teacher_epochs=1, betas=(1.0,), layers=("0.spare",))(
            model, _loader(), None, progress=False
        )


def test_its_defaults():
    defense = NAD()
    assert (defense.betas, defense.teacher_epochs) == ((500.0, 1000.0, 1000.0), 10)
    assert defense.decay_epoch == 20
    assert (defense.epochs, defense.lr, defense.momentum, defense.weight_decay) == (
        100,
        0.01,
        0.9,
        1e-4,
    )


def test_the_learning_rate_falls_to_a_hundredth_once():
    defense = NAD(epochs=4, teacher_epochs=1, decay_epoch=2, lr=0.1)
    history = defense(_model(), _loader(), None, progress=False).history
    assert [record.lr for record in history] == pytest.approx([0.1, 0.1, 0.001, 0.001])


def test_no_beta_is_negative():
    with pytest.raises(ValueError, match=r"betas must be finite and >= 0, got -1\.0"):
        NAD(betas=(1.0, -1.0))
