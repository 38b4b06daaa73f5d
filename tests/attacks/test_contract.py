"""Contract of every attack in the registry. A new attack is one line in ``SPECS``."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from d3fast.attacks import ATTACKS, Attack, Learned, TrainConfig, load_attack, train_backdoored
from d3fast.attacks.files import save_attack
from d3fast.data import ImageData, as_float
from d3fast.runtime.seeding import generator, global_seed
from d3fast.training.labels import MAPPINGS, target_labels

NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Spec:
    """Options that make an attack quick to learn, and options that it must reject."""

    options: dict[str, Any] = field(default_factory=dict)
    invalid: dict[str, list[Any]] = field(default_factory=dict)
    mappings: tuple[str, ...] = MAPPINGS


SPECS = {
    "badnets": Spec({}, {"size": [0, 1.5], "margin": [-1]}),
    "blended": Spec(
        {},
        {"alpha": [-0.1, 1.1, NAN], "pattern": ["?"], "frequency": [-1], "sharpness": [INF]},
    ),
    "sig": Spec(
        {"frequency": 2.0},
        {"delta": [-0.1, 40, None], "train_delta": [1.5], "share": [1.1], "frequency": [-1, "6"]},
    ),
    "wanet": Spec(
        {"strength": 2.0},
        {"grid": [0], "strength": [-0.5], "cross_ratio": [NAN], "seed": [0.5]},
        mappings=("all-to-one", "all-to-all"),
    ),
    "low-frequency": Spec(
        {"steps": 2, "batch_size": 8, "surrogate_epochs": 1},
        {"objective": ["?"], "limit": [1.5], "energy": [2], "sigma": [0.0], "surrogate": ["?"]},
    ),
    "input-aware": Spec(
        {"width": 4, "mask_steps": 2},
        {"density": [0.0, 1.5], "cross_ratio": [INF], "width": [0], "mask_steps": [0], "lr": [NAN]},
        mappings=("all-to-one", "all-to-all"),
    ),
    "ssba": Spec(
        {"steps": 2, "batch_size": 8},
        {"strength": [1.5], "image_weight": [-1.0], "width": [0], "lr": [NAN]},
    ),
}
LEARNED = [name for name, make in ATTACKS.items() if isinstance(make(target=0), Learned)]
every_attack = pytest.mark.parametrize("name", ATTACKS)
every_learned_attack = pytest.mark.parametrize("name", LEARNED)


def _data(count=100, classes=4, dtype=torch.uint8):
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator(0, "images"))
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    return ImageData(images, torch.arange(count) % classes, tuple("abcdefgh"[:classes]))


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


_states: dict[str, Any] = {}


def _attack(name, target=1, **options):
    """Return an attack that is ready to use; its trigger is learned once per name."""
    attack = ATTACKS[name](target=target, **{**SPECS[name].options, **options})
    if isinstance(attack, Learned):
        if name not in _states:
            learner = ATTACKS[name](target=1, **SPECS[name].options)
            learner.learn(_data(), progress=False)
            _states[name] = learner.state_dict()
        attack.load_state_dict(_states[name])
    return attack


def _model():
    with global_seed(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


@every_attack
def test_implements_the_protocol(name):
    attack = ATTACKS[name](target=2)
    assert isinstance(attack, Attack)
    assert attack.target == 2
    assert attack.mapping in SPECS[name].mappings


@every_attack
@pytest.mark.parametrize("value", [-1, 0.5, True, "0", NAN])
def test_target_must_be_an_integer(name, value):
    with pytest.raises(ValueError, match=rf"target must be .* got {value!r}"):
        ATTACKS[name](target=value)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        (name, option, value)
        for name, spec in SPECS.items()
        for option, values in spec.invalid.items()
        for value in values
    ],
)
def test_an_invalid_option_is_named_with_its_value(name, option, value):
    with pytest.raises(ValueError, match=rf"^{option} must .* got {re.escape(repr(value))}"):
        ATTACKS[name](**{"target": 0, option: value})


@pytest.mark.parametrize("mapping", [*MAPPINGS, "all"])
@every_attack
def test_mappings_are_accepted_or_named(name, mapping):
    if mapping in SPECS[name].mappings:
        assert ATTACKS[name](target=0, mapping=mapping).mapping == mapping
    else:
        with pytest.raises(ValueError, match=f"mapping must be one of .* got '{mapping}'"):
            ATTACKS[name](target=0, mapping=mapping)


@every_attack
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,)])
def test_shape_and_dtype_are_kept_and_values_stay_in_range(name, dtype, leading):
    images = torch.rand(*leading, 1, 8, 8, generator=_seeded())
    images = (255 * images).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    stamped = _attack(name).trigger(images)
    assert (stamped.shape, stamped.dtype) == (images.shape, dtype)
    assert ((stamped >= 0) & (stamped <= (255 if dtype == torch.uint8 else 1))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in (*LEARNED, "wanet")])
def test_half_types_are_kept_by_fixed_patterns(name, dtype):
    stamped = _attack(name).trigger(torch.rand(2, 1, 8, 8).to(dtype))
    assert stamped.dtype == dtype
    assert ((stamped >= 0) & (stamped <= 1)).all()


@every_attack
def test_an_image_is_stamped_alike_alone_and_in_a_batch(name):
    attack, images = _attack(name), torch.rand(2, 3, 1, 8, 8, generator=_seeded())
    alone = torch.stack([attack.trigger(image) for image in images.flatten(0, 1)])
    torch.testing.assert_close(attack.trigger(images).flatten(0, 1), alone)


@every_attack
def test_bytes_and_floats_agree_to_half_a_grey_level(name):
    attack, images = _attack(name), _data().images
    difference = as_float(attack.trigger(images)) - attack.trigger(as_float(images))
    assert difference.abs().max() <= 0.501 / 255


@every_attack
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_stamping_is_deterministic_and_changes_neither_input_nor_global_generator(name, dtype):
    attack, images = _attack(name), _data(10, dtype=dtype).images
    before, state = images.clone(), torch.get_rng_state()
    assert torch.equal(attack.trigger(images), attack.trigger(images))
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)


@every_attack
@given(ratio=st.floats(0, 0.75), seed=st.integers(0, 2**32))
def test_poison_stamps_and_relabels_the_requested_share(name, ratio, seed):
    data, attack = _data(), _attack(name, mapping="all-to-one")
    images, labels = data.images.clone(), data.labels.clone()
    poisoned = attack.poison(data, ratio, generator=_seeded(seed))
    chosen = torch.zeros(100, dtype=torch.bool)
    chosen[poisoned.indices] = True
    assert torch.equal(poisoned.indices, chosen.nonzero().flatten())  # ascending, each once
    assert len(poisoned.indices) == round(ratio * 100)
    assert (labels[chosen] != 1).all()
    assert (poisoned.data.labels[chosen] == 1).all()
    assert torch.equal(poisoned.data.labels[~chosen], labels[~chosen])
    torch.testing.assert_close(poisoned.data.images[chosen], attack.trigger(images[chosen]))
    changed = (poisoned.data.images != images).flatten(1).any(1)
    crossed = round(getattr(attack, "cross_ratio", 0) * len(poisoned.indices))
    assert (changed & ~chosen).sum() == min(crossed, 100 - len(poisoned.indices))
    assert torch.equal(data.images, images)
    assert torch.equal(data.labels, labels)


@pytest.mark.parametrize(
    ("name", "mapping"), [(name, m) for name, spec in SPECS.items() for m in spec.mappings]
)
def test_the_mapping_decides_the_labels(name, mapping):
    data = _data()
    poisoned = _attack(name, mapping=mapping).poison(data, 0.2, generator=_seeded())
    rows = poisoned.indices
    before, after = data.labels[rows], poisoned.data.labels[rows]
    assert len(rows) == 20
    if mapping == "clean-label":
        assert (before == 1).all()
        assert torch.equal(poisoned.data.labels, data.labels)
        changed = (poisoned.data.images != data.images).flatten(1).any(1)
        assert set(changed.nonzero().flatten().tolist()) <= set(rows.tolist())
    else:
        assert torch.equal(after, target_labels(before, 1, 4, mapping))
        assert (after != before).all()


@every_attack
def test_clean_label_poison_takes_at_most_the_target_class(name):
    if "clean-label" in SPECS[name].mappings:
        attack = _attack(name, mapping="clean-label")
        assert len(attack.poison(_data(), 0.9, generator=_seeded()).indices) == 25


@every_attack
def test_the_generator_draws_the_poisoned_images(name):
    first, again, other = (
        _attack(name).poison(_data(), 0.2, generator=_seeded(seed)).data.images
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_attack
def test_float_images_are_poisoned_like_bytes(name):
    attack = _attack(name)
    in_bytes, in_floats = (
        attack.poison(_data(dtype=dtype), 0.2, generator=_seeded())
        for dtype in (torch.uint8, torch.float32)
    )
    assert torch.equal(in_bytes.indices, in_floats.indices)
    difference = as_float(in_bytes.data.images) - in_floats.data.images
    assert difference.abs().max() <= 0.501 / 255


@every_attack
@pytest.mark.parametrize("ratio", [-0.1, 1.1, NAN])
def test_ratio_must_be_in_0_to_1(name, ratio):
    with pytest.raises(ValueError, match=rf"ratio must be in 0\.\.1, got {ratio}"):
        _attack(name).poison(_data(), ratio)


@every_attack
def test_a_ratio_that_needs_more_images_than_there_are_is_rejected(name):
    attack = _attack(name, mapping="all-to-one")
    assert len(attack.poison(_data(), 0.75, generator=_seeded()).indices) == 75
    with pytest.raises(ValueError, match=r"ratio=0\.76 .* 76 .* 75"):
        attack.poison(_data(), 0.76, generator=_seeded())


@every_attack
def test_target_must_be_the_attacks_own_and_a_class(name):
    attack = _attack(name)
    assert len(attack.poison(_data(), 0.1, target=1).indices) == 10
    with pytest.raises(ValueError, match=r"target must be .* 1, got 0"):
        attack.poison(_data(), 0.1, target=0)
    with pytest.raises(ValueError, match=r"target must be in 0\.\.3, got 4"):
        _attack(name, target=4).poison(_data(), 0.1)


@every_attack
def test_a_saved_attack_is_loaded_with_options_and_tensors(name, tmp_path):
    attack = _attack(name, target=3)
    save_attack(attack, tmp_path / "attack", name)
    loaded = load_attack(tmp_path / "attack")
    assert loaded == attack
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded.trigger(images), attack.trigger(images))


@every_attack
def test_foreign_tensors_are_rejected_and_change_nothing(name):
    attack = _attack(name)
    before = attack.state_dict()
    with pytest.raises(ValueError, match="foreign"):
        attack.load_state_dict({**before, "foreign": torch.zeros(1)})
    after = attack.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@every_learned_attack
def test_an_attack_without_a_trigger_says_so_and_can_be_saved(name, tmp_path):
    attack = ATTACKS[name](target=1)
    assert not attack.learned
    assert attack.state_dict() == {}
    with pytest.raises(ValueError, match=r"has no \w+ yet: call learn"):
        attack.trigger(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"has no \w+ yet: call learn"):
        attack.poison(_data(), 0.1)
    save_attack(attack, tmp_path / "attack", name)
    assert not load_attack(tmp_path / "attack").learned
    assert _attack(name).learned


@every_learned_attack
def test_a_copy_of_the_options_is_unlearned_and_the_empty_state_resets(name):
    attack = _attack(name)
    assert not replace(attack).learned
    attack.load_state_dict({})
    assert not attack.learned


@every_learned_attack
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize(
    "change",
    [
        None,
        lambda value: torch.full_like(value, NAN),
        lambda value: value.double(),
        lambda value: torch.zeros(9),
        lambda value: torch.zeros(0),
    ],
    ids=["renamed", "NaN", "dtype", "shape", "empty"],
)
def test_tensors_that_do_not_fit_are_named_and_change_nothing(name, change, place):
    attack = _attack(name)
    before = attack.state_dict()
    key = list(before)[place]
    state = {other: value for other, value in before.items() if other != key}
    state[key if change else "renamed"] = change(before[key]) if change else before[key]
    with pytest.raises(ValueError, match=key):
        attack.load_state_dict(state)
    after = attack.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@every_attack
def test_colour_images_are_learned_on_and_those_of_any_size_stamped(name):
    attack, data = ATTACKS[name](target=1, **SPECS[name].options), _data(32)
    images = torch.rand(32, 3, 8, 9, generator=_seeded())
    if isinstance(attack, Learned):
        attack.learn(replace(data, images=images), progress=False)
    assert attack.trigger(torch.rand(2, 3, 20, 11)).shape == (2, 3, 20, 11)


@every_learned_attack
def test_images_of_other_channels_are_rejected(name):
    with pytest.raises(ValueError, match=r"1 (channels|x H x W).*3"):
        _attack(name).trigger(torch.rand(1, 3, 8, 8))


@every_learned_attack
def test_learning_is_decided_by_the_seed_and_changes_nothing_else(name):
    data, state, states = _data(32), torch.get_rng_state(), []
    images, labels = data.images.clone(), data.labels.clone()
    for seed in (0, 0, 1):
        attack = ATTACKS[name](target=1, **SPECS[name].options)
        with torch.no_grad():
            attack.learn(data, seed=seed, progress=False)
        states.append(torch.cat([value.flatten() for value in attack.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(data.images, images)
    assert torch.equal(data.labels, labels)


@every_attack
def test_training_is_decided_by_the_seed_and_is_the_clean_models_without_poison(name):
    def weight(attack, ratio=0.2, seed=0):
        config = TrainConfig(epochs=2, batch_size=32)
        model = train_backdoored(
            _model(), _data(), attack, ratio=ratio, seed=seed, config=config, progress=False
        )
        return model[1].weight

    first, again, other = (weight(_attack(name), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(weight(_attack(name), ratio=0.0), weight(None))
    assert not torch.equal(first, weight(None))


@every_attack
def test_training_rejects_an_attack_that_does_not_fit_the_data(name):
    for attack, ratio, error in (
        (_attack(name, target=9), 0.1, r"target must be in 0\.\.3, got 9"),
        (_attack(name), 2, r"ratio must be in 0\.\.1, got 2"),
    ):
        with pytest.raises(ValueError, match=error):
            train_backdoored(_model(), _data(), attack, ratio=ratio, progress=False)
