"""Inversion of triggers: a backdoor of one pixel, planted by hand, is found and nothing else is."""

import copy

import pytest
import torch
from torch import nn

from d3fast.audit.anomaly import anomaly_indices, outliers
from d3fast.audit.inversion import (
    Inversion,
    InversionOptions,
    _Search,
    _Weight,
    invert_all,
    invert_trigger,
)
from tests.audit.toys import SIDE, STRIPES, stripe_batches, stripes

PLANTED = 2
SHORT = InversionOptions(steps=30)


def _invert(model, **options):
    return invert_all(model, stripe_batches(), options=InversionOptions(**options), progress=False)


def test_a_planted_pixel_is_found_and_its_class_alone_stands_out():
    found = _invert(stripes(PLANTED), steps=300)
    norms = [inversion.norm for inversion in found]
    mine = found[PLANTED]
    assert mine.mask.argmax() == SIDE * SIDE - 1
    assert mine.mask[0, -1, -1] > 0.9 * mine.norm
    assert mine.pattern[0, -1, -1] > 0.9
    assert mine.norm < 0.5 * min(norms[:PLANTED] + norms[PLANTED + 1 :])
    assert anomaly_indices(norms)[PLANTED] > 2
    assert outliers(norms) == (PLANTED,)


def test_no_class_of_a_clean_model_stands_out():
    found = _invert(stripes(), steps=300)
    assert outliers([inversion.norm for inversion in found]) == ()


def test_success_is_the_share_of_other_classes_images_that_answer_the_class():
    model = stripes(PLANTED)
    for found in _invert(model, steps=60):
        hits = images = 0
        for inputs, labels in stripe_batches():
            others = inputs[labels != found.target]
            patched = (1 - found.mask) * others + found.mask * found.pattern
            torch.testing.assert_close(found.apply(others), patched)
            hits += int((model(patched).argmax(dim=1) == found.target).sum())
            images += len(others)
        assert found.success == hits / images


def test_masks_and_patterns_are_images():
    for found in _invert(stripes(PLANTED), steps=30):
        assert found.mask.shape == (1, SIDE, SIDE)
        assert found.pattern.shape == (1, SIDE, SIDE)
        assert all(part.min() >= 0 and part.max() <= 1 for part in (found.mask, found.pattern))
        assert found.norm == pytest.approx(float(found.mask.sum()))


def test_an_inversion_is_applied_where_the_mask_is():
    mask, pattern = torch.tensor([[[0.0, 1.0, 0.5]]]), torch.tensor([[[1.0]], [[0.2]]])
    found = Inversion(0, mask, pattern.expand(2, 1, 3), 1.5, 1.0)
    images = torch.zeros(1, 2, 1, 3)
    expected = torch.tensor([[[[0.0, 1.0, 0.5]], [[0.0, 0.2, 0.1]]]])
    torch.testing.assert_close(found.apply(images), expected)
    assert not images.any()


def test_one_class_is_inverted_as_among_all():
    model = stripes(PLANTED)
    alone = invert_trigger(model, stripe_batches(), 4, options=SHORT, progress=False)
    among = invert_all(model, stripe_batches(), options=SHORT, progress=False)[4]
    assert alone.target == among.target == 4
    torch.testing.assert_close(alone.mask, among.mask)
    torch.testing.assert_close(alone.pattern, among.pattern)


@pytest.mark.parametrize("at_once", [1, 4])
def test_how_many_classes_run_at_once_changes_nothing(at_once):
    model = stripes(PLANTED)
    for a, b in zip(
        _invert(model, steps=30), _invert(model, steps=30, classes_at_once=at_once), strict=True
    ):
        torch.testing.assert_close(a.mask, b.mask)


def test_targets_come_back_in_the_order_they_were_asked_for():
    found = invert_all(stripes(), stripe_batches(), (5, 1), options=SHORT, progress=False)
    assert [inversion.target for inversion in found] == [5, 1]


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not():
    first, second = (_invert(stripes(PLANTED), steps=30) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.mask, b.mask)
        assert torch.equal(a.pattern, b.pattern)
        assert (a.norm, a.success) == (b.norm, b.success)
    other = invert_all(stripes(PLANTED), stripe_batches(), options=SHORT, seed=1, progress=False)
    assert not torch.equal(first[0].mask, other[0].mask)


def _normed():
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 6)
    )
    model[2].eval()
    model[1].bias.requires_grad_(False)
    return model


def _state(model):
    return (
        [module.training for module in model.modules()],
        [param.requires_grad for param in model.parameters()],
        [param.grad for param in model.parameters()],
    )


def test_the_model_comes_back_as_it_was():
    model = _normed()
    weights, state = copy.deepcopy(model.state_dict()), _state(model)
    with torch.no_grad():  # the caller's setting is no obstacle
        invert_all(model, stripe_batches(), options=SHORT, progress=False)
    assert _state(model) == state
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_the_model_comes_back_as_it_was_after_an_error():
    model = _normed()
    state = _state(model)

    def fail(module, inputs):
        assert not any(param.requires_grad for param in model.parameters())
        assert not any(module.training for module in model.modules())
        raise RuntimeError("no forward pass today")

    model[5].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no forward pass today"):
        invert_all(model, stripe_batches(), options=SHORT, progress=False)
    assert _state(model) == state


def test_lambda_grows_after_patient_success_and_shrinks_faster_after_patient_failure():
    options = InversionOptions(patience=2, factor=2.0)
    weight = _Weight(1.0)
    seen = []
    for succeeded in (True, True, True, False, True, True, False, False, False, False):
        weight.follow(succeeded, options)
        seen.append(weight.value)
    low = 2 / 2**0.5  # 4 / 2 ** 1.5
    assert seen == pytest.approx([1, 2, 2, 2, 2, 4, 4, low, low, low / 2**1.5])


def _search():
    return _Search(0, torch.arange(1), torch.Generator(), torch.zeros(1, 1, 1), torch.zeros(1))


def test_the_smallest_mask_that_counts_is_kept():
    search = _search()
    kept = []
    for success, norm in (
        (0.2, 1.0),
        (0.5, 9.0),
        (0.4, 1.0),
        (0.99, 20.0),
        (0.98, 2.0),
        (1.0, 30.0),
        (0.99, 15.0),
    ):
        search.record(success, norm, 0.99)
        kept.append((search.best_success, search.best_norm))
    assert kept == [
        (0.2, 1.0),
        (0.5, 9.0),
        (0.5, 9.0),
        (0.99, 20.0),
        (0.99, 20.0),
        (0.99, 20.0),
        (0.99, 15.0),
    ]


def test_rounds_without_a_smaller_mask_are_counted_once_one_counts():
    search = _search()
    stale = []
    for success, norm in ((0.5, 9.0), (0.4, 9.0), (1.0, 9.0), (1.0, 9.0), (0.1, 1.0), (1.0, 8.0)):
        search.record(success, norm, 0.99)
        stale.append(search.stale)
    assert stale == [0, 0, 0, 1, 2, 0]


def test_a_stalled_class_costs_nothing_more():
    def images(**options):
        seen = []
        model = stripes()
        model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
        _invert(model, round_steps=1, batch_size=4, lr=0.0, success=0.0, **options)
        return [n for n in seen if n == 4 * STRIPES]

    assert len(images(steps=9, stall=25)) == 9
    assert len(images(steps=9, stall=3)) == 4  # the first one counts, three more do not


def test_steps_are_steps_whatever_the_rounds():
    seen = []
    model = stripes()
    model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    _invert(model, steps=7, round_steps=3, batch_size=5)
    assert seen.count(5 * STRIPES) == 7


def test_a_class_that_no_patch_reaches_says_so():
    model = stripes()
    with torch.no_grad():
        model[1].bias[3] = -1e6
    found = invert_trigger(model, stripe_batches(), 3, options=SHORT, progress=False)
    assert found.success == 0.0
    assert 0 < found.norm < SIDE * SIDE


def test_two_classes_are_inverted_and_neither_stands_out():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    loader = [(torch.rand(8, 1, 2, 2), torch.arange(8) % 2)]
    found = invert_all(model, loader, options=SHORT, progress=False)
    assert outliers([inversion.norm for inversion in found]) == ()


IMAGES, LABELS = torch.rand(4, 1, SIDE, SIDE), torch.arange(4)


@pytest.mark.parametrize(
    ("loader", "targets", "error_text"),
    [
        ([], None, "clean_loader yields nothing"),
        ([(IMAGES[:0], LABELS[:0])], None, "clean_loader yields nothing"),
        ([(IMAGES.flatten(1), LABELS)], None, r"float images \(N, C, H, W\), got shape \(4, 36\)"),
        ([(IMAGES.byte(), LABELS)], None, r"of torch\.uint8"),
        ([(IMAGES * 2 - 1, LABELS)], None, r"images in \[0, 1\]; put a normalisation into"),
        ([(IMAGES * torch.nan, LABELS)], None, r"images in \[0, 1\]"),
        ([(IMAGES, LABELS + 3)], None, r"holds label 6, the model has classes 0\.\.5"),
        ([(IMAGES, LABELS - 1)], None, "holds label -1"),
        ([(IMAGES, LABELS)], (6,), r"target must be in 0\.\.5 for this model, got 6"),
        ([(IMAGES, LABELS * 0)], (0,), "every image of clean_loader has the target class 0"),
    ],
)
def test_what_cannot_be_inverted_is_refused(loader, targets, error_text):
    with pytest.raises(ValueError, match=error_text):
        invert_all(stripes(), loader, targets, options=SHORT, progress=False)


def test_scores_that_are_no_numbers_are_refused():
    model = stripes()
    with torch.no_grad():
        model[1].bias[1] = torch.nan
    with pytest.raises(ValueError, match="the model gives NaN or inf scores under the patch of 0"):
        invert_all(model, stripe_batches(), options=SHORT, progress=False)


@pytest.mark.parametrize(
    ("option", "value", "error_text"),
    [
        ("steps", 0, "steps must be an integer >= 1, got 0"),
        ("round_steps", 1.5, "round_steps must be an integer >= 1"),
        ("lr", -1.0, "lr must be finite and >= 0"),
        ("success", 1.1, r"success must be <= 1, got 1\.1"),
        ("factor", 0.5, r"factor must be finite and >= 1, got 0\.5"),
        ("betas", (0.5, 1.0), r"betas must be two numbers in \[0, 1\)"),
    ],
)
def test_options_out_of_range_are_refused(option, value, error_text):
    with pytest.raises(ValueError, match=error_text):
        InversionOptions(**{option: value})
