# SPDX-License-Identifier: Apache-2.0
"""The contract of an attack on images: protocol, triggers, poisoning, saved files, training."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from d3fast.attacks import Attack, Learned, TrainConfig, train_backdoored
from d3fast.data import as_float
from d3fast.testing.learned_attacks import LEARNED, same, saved
from d3fast.testing.rules import Rule, check, raises, spec_of
from d3fast.testing.toys import linear_model, random_images
from d3fast.training.labels import MAPPINGS, target_labels

_NAN = float("nan")
_FLOATS = (torch.float32, torch.float64)
_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class AttackCase:
    """An attack under test.

    Attributes:
        make: the class, a frozen dataclass; needs ``target`` alone.
        options: make the attack quick to learn.
        invalid: values of options that it must refuse, by option.
        mappings: the label mappings that it takes.
        half: ``trigger`` keeps float16 and bfloat16.
    """

    make: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    invalid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    mappings: tuple[str, ...] = MAPPINGS
    half: bool = False
    _learned: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def rules(self) -> Sequence[Rule]:
        """Return the rules that apply: some are for learned triggers, some for clean labels."""
        found = list(_RULES)
        if isinstance(self.make(target=0), Learned):
            found += LEARNED
        if "clean-label" in self.mappings:
            found.append(clean_label_poison_takes_at_most_the_target_class)
        if self.half:
            found.append(half_types_are_kept)
        return tuple(found)

    def attack(self, target: int = 1, **options: Any) -> Any:
        """Return an attack that is ready to use; its trigger is learned once."""
        attack: Any = self.make(target=target, **{**self.options, **options})
        if hasattr(attack, "learned"):
            if not self._learned:
                learner = self.make(target=1, **self.options)
                learner.learn(random_images(), progress=False)
                self._learned.update(learner.state_dict())
            attack.load_state_dict(dict(self._learned))
        return attack


def check_attack(make: Callable[..., Any], **options: Any) -> None:
    """Apply all rules to an attack.

    Args:
        make: the class.
        options: the other fields of ``AttackCase``.

    Raises:
        AssertionError: the rules that it breaks.

    Example:
        >>> from d3fast.attacks import BadNets
        >>> check_attack(BadNets, invalid={"size": [0]}, half=True)
    """
    check(AttackCase(make, **options))


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def implements_the_protocol(case: AttackCase) -> None:
    """An attack has the methods of ``Attack``, a target and a mapping."""
    attack = case.make(target=2)
    assert isinstance(attack, Attack)
    assert attack.target == 2
    assert attack.mapping in case.mappings


def target_must_be_an_integer(case: AttackCase) -> None:
    """Another target is refused by its value."""
    for value in (-1, 0.5, True, "0", _NAN):
        with raises(rf"target must be .* got {value!r}"):
            case.make(target=value)


def an_invalid_option_is_named_with_its_value(case: AttackCase) -> None:
    """An option out of range is refused by name and value."""
    for option, values in case.invalid.items():
        for value in values:
            with raises(rf"^{option} must .* got {re.escape(repr(value))}"):
                case.make(**{"target": 0, option: value})


def mappings_are_accepted_or_named(case: AttackCase) -> None:
    """A mapping is taken, or refused by name."""
    for mapping in (*MAPPINGS, "all"):
        if mapping in case.mappings:
            assert case.make(target=0, mapping=mapping).mapping == mapping
        else:
            with raises(f"mapping must be one of .* got '{mapping}'"):
                case.make(target=0, mapping=mapping)


def _images(dtype: torch.dtype, *leading: int) -> Tensor:
    images = torch.rand(*leading, 1, 8, 8, generator=_seeded())
    return (255 * images).to(dtype) if dtype == torch.uint8 else images.to(dtype)


def shape_and_dtype_are_kept_and_values_stay_in_range(case: AttackCase) -> None:
    """A triggered batch, of any leading dimensions, is a batch of images like the clean one."""
    attack = case.attack()
    for dtype in (torch.uint8, *_FLOATS):
        for leading in ((), (5,), (2, 3), (0,)):
            images = _images(dtype, *leading)
            stamped = attack.trigger(images)
            assert (stamped.shape, stamped.dtype) == (images.shape, dtype)
            assert ((stamped >= 0) & (stamped <= (255 if dtype == torch.uint8 else 1))).all()


def half_types_are_kept(case: AttackCase) -> None:
    """A fixed pattern keeps float16 and bfloat16."""
    for dtype in _HALVES:
        stamped = case.attack().trigger(_images(dtype, 2))
        assert stamped.dtype == dtype
        assert ((stamped >= 0) & (stamped <= 1)).all()


def an_image_is_stamped_alike_alone_and_in_a_batch(case: AttackCase) -> None:
    """The trigger of an image does not depend on the batch around it."""
    attack, images = case.attack(), _images(torch.float32, 2, 3)
    alone = torch.stack([attack.trigger(image) for image in images.flatten(0, 1)])
    torch.testing.assert_close(attack.trigger(images).flatten(0, 1), alone)


def bytes_and_floats_agree_to_half_a_grey_level(case: AttackCase) -> None:
    """Bytes are rounded, not another trigger."""
    attack, images = case.attack(), random_images().images
    difference = as_float(attack.trigger(images)) - attack.trigger(as_float(images))
    assert difference.abs().max() <= 0.501 / 255


def stamping_is_deterministic_and_changes_nothing_else(case: AttackCase) -> None:
    """``trigger`` changes neither its input nor the global generator."""
    for dtype in (torch.uint8, torch.float32):
        attack, images = case.attack(), random_images(10, dtype=dtype).images
        before, state = images.clone(), torch.get_rng_state()
        assert torch.equal(attack.trigger(images), attack.trigger(images))
        assert torch.equal(images, before)
        assert torch.equal(torch.get_rng_state(), state)


def poison_stamps_and_relabels_the_requested_share(case: AttackCase) -> None:
    """``poison`` changes a copy: the chosen images, and crossed ones that keep their labels."""
    for ratio in (0.0, 0.013, 0.2, 0.5, 0.75):
        for seed in (0, 1, 2**32):
            _check_poison(case, ratio, seed)


def _check_poison(case: AttackCase, ratio: float, seed: int) -> None:
    data, attack = random_images(), case.attack(mapping="all-to-one")
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


def the_mapping_decides_the_labels(case: AttackCase) -> None:
    """Labels follow the mapping; clean labels stay."""
    data = random_images()
    for mapping in case.mappings:
        poisoned = case.attack(mapping=mapping).poison(data, 0.2, generator=_seeded())
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


def clean_label_poison_takes_at_most_the_target_class(case: AttackCase) -> None:
    """A larger ratio poisons all images of the target class."""
    attack = case.attack(mapping="clean-label")
    assert len(attack.poison(random_images(), 0.9, generator=_seeded()).indices) == 25


def the_generator_draws_the_poisoned_images(case: AttackCase) -> None:
    """One seed gives one set, another seed another one."""
    first, again, other = (
        case.attack().poison(random_images(), 0.2, generator=_seeded(seed)).data.images
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def float_images_are_poisoned_like_bytes(case: AttackCase) -> None:
    """The dtype of the images does not decide which are poisoned."""
    attack = case.attack()
    in_bytes, in_floats = (
        attack.poison(random_images(dtype=dtype), 0.2, generator=_seeded())
        for dtype in (torch.uint8, torch.float32)
    )
    assert torch.equal(in_bytes.indices, in_floats.indices)
    difference = as_float(in_bytes.data.images) - in_floats.data.images
    assert difference.abs().max() <= 0.501 / 255


def ratio_must_be_in_0_to_1(case: AttackCase) -> None:
    """Another ratio is refused by its value."""
    for ratio in (-0.1, 1.1, _NAN):
        with raises(rf"ratio must be in 0\.\.1, got {ratio}"):
            case.attack().poison(random_images(), ratio)


def a_ratio_that_needs_more_images_than_there_are_is_refused(case: AttackCase) -> None:
    """Images of the target class cannot be relabelled to it."""
    attack = case.attack(mapping="all-to-one")
    assert len(attack.poison(random_images(), 0.75, generator=_seeded()).indices) == 75
    with raises(r"ratio=0\.76 .* 76 .* 75"):
        attack.poison(random_images(), 0.76, generator=_seeded())


def target_must_be_the_attacks_own_and_a_class(case: AttackCase) -> None:
    """``poison`` refuses a target that is no class of the data, or not the attack's."""
    attack = case.attack()
    assert len(attack.poison(random_images(), 0.1, target=1).indices) == 10
    with raises(r"target must be .* 1, got 0"):
        attack.poison(random_images(), 0.1, target=0)
    with raises(r"target must be in 0\.\.3, got 4"):
        case.attack(target=4).poison(random_images(), 0.1)


def a_saved_attack_is_loaded_with_options_and_tensors(case: AttackCase) -> None:
    """A file of ``save_attack`` gives an equal attack with the same trigger."""
    attack, images = case.attack(target=3), _images(torch.float32, 2)
    with saved(attack, spec_of(case.make)) as loaded:
        assert loaded == attack
        assert torch.equal(loaded.trigger(images), attack.trigger(images))


def foreign_tensors_are_refused_and_change_nothing(case: AttackCase) -> None:
    """``load_state_dict`` takes what ``state_dict`` gave and nothing else."""
    attack = case.attack()
    before = attack.state_dict()
    with raises("foreign"):
        attack.load_state_dict({**before, "foreign": torch.zeros(1)})
    assert same(attack.state_dict(), before)


def colour_images_are_learned_on_and_those_of_any_size_stamped(case: AttackCase) -> None:
    """A trigger fits images of other sizes than those that it was learned on."""
    attack, data = case.make(target=1, **case.options), random_images(32)
    images = torch.rand(32, 3, 8, 9, generator=_seeded())
    if isinstance(attack, Learned):
        attack.learn(replace(data, images=images), progress=False)
    assert attack.trigger(torch.rand(2, 3, 20, 11)).shape == (2, 3, 20, 11)


def training_is_decided_by_the_seed_and_is_clean_without_poison(case: AttackCase) -> None:
    """Models of one seed are equal; with ratio 0 they are those of no attack."""

    def weight(attack: Any, ratio: float = 0.2, seed: int = 0) -> Tensor:
        config = TrainConfig(epochs=2, batch_size=32)
        model = train_backdoored(
            linear_model(),
            random_images(),
            attack,
            ratio=ratio,
            seed=seed,
            config=config,
            progress=False,
        )
        return model.get_parameter("1.weight")

    first, again, other = (weight(case.attack(), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(weight(case.attack(), ratio=0.0), weight(None))
    assert not torch.equal(first, weight(None))


def training_refuses_an_attack_that_does_not_fit_the_data(case: AttackCase) -> None:
    """A target that is no class, and a ratio that is no share, are refused."""
    for attack, ratio, error in (
        (case.attack(target=9), 0.1, r"target must be in 0\.\.3, got 9"),
        (case.attack(), 2, r"ratio must be in 0\.\.1, got 2"),
    ):
        with raises(error):
            train_backdoored(linear_model(), random_images(), attack, ratio=ratio, progress=False)


_RULES: tuple[Rule, ...] = (
    implements_the_protocol,
    target_must_be_an_integer,
    an_invalid_option_is_named_with_its_value,
    mappings_are_accepted_or_named,
    shape_and_dtype_are_kept_and_values_stay_in_range,
    an_image_is_stamped_alike_alone_and_in_a_batch,
    bytes_and_floats_agree_to_half_a_grey_level,
    stamping_is_deterministic_and_changes_nothing_else,
    poison_stamps_and_relabels_the_requested_share,
    the_mapping_decides_the_labels,
    the_generator_draws_the_poisoned_images,
    float_images_are_poisoned_like_bytes,
    ratio_must_be_in_0_to_1,
    a_ratio_that_needs_more_images_than_there_are_is_refused,
    target_must_be_the_attacks_own_and_a_class,
    a_saved_attack_is_loaded_with_options_and_tensors,
    foreign_tensors_are_refused_and_change_nothing,
    colour_images_are_learned_on_and_those_of_any_size_stamped,
    training_is_decided_by_the_seed_and_is_clean_without_poison,
    training_refuses_an_attack_that_does_not_fit_the_data,
)
