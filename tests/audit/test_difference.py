"""Where a suspect departs from its base, and how low-rank the change is."""

import pytest
import torch
from torch import nn

from d3fast.audit.difference import compare_weights, head_weight
from d3fast.results.schema.fields import read_rows
from d3fast.results.schema.weights import HeadRowDifference, MismatchRow, TensorDifferenceRow


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.Linear(20, 4))


@pytest.fixture
def base():
    return {name: value.clone() for name, value in net().state_dict().items()}


def test_equal_models_have_no_changes(base):
    found = compare_weights(base, dict(base), "2.weight")
    assert found.changed == ()
    assert found.total.distance == 0
    assert all(row.distance == 0 for row in found.rows)
    assert len(found.tensors) == len(base)


def test_a_change_of_rank_one_in_one_layer_is_found(base):
    update = torch.outer(torch.randn(20), torch.randn(6))
    found = compare_weights(base, {**base, "0.weight": base["0.weight"] + update})
    (only,) = found.changed
    assert only.name == "0.weight"
    assert only.distance == pytest.approx(float(update.norm()), rel=1e-5)
    assert only.relative == pytest.approx(float(update.norm() / base["0.weight"].norm()), rel=1e-5)
    assert (only.rank, only.share, only.most) == (pytest.approx(1, abs=1e-2), pytest.approx(1), 6)
    assert (found.head, found.rows) == (None, ())


def test_the_row_of_the_head_that_changed_most_comes_first(base):
    edited = base["2.weight"].clone()
    edited[1] += 0.1
    edited[3] += 1.0
    found = compare_weights(base, {**base, "2.weight": edited}, "2.weight")
    assert [row.target for row in found.rows[:2]] == [3, 1]
    assert found.rows[0].distance == pytest.approx(20**0.5, rel=1e-5)
    assert found.head == "2.weight"


def test_the_largest_relative_change_comes_first(base):
    edited = {**base, "0.weight": 1.1 * base["0.weight"], "2.weight": 3 * base["2.weight"]}
    edited["1.running_mean"] = torch.ones(20)  # zero in the base: infinitely far
    names = [tensor.name for tensor in compare_weights(base, edited).changed]
    assert names == ["1.running_mean", "2.weight", "0.weight"]


def test_other_names_and_shapes_are_listed_with_the_reason(base):
    other = {**base, "2.weight": torch.zeros(5, 20), "extra": torch.zeros(1)}
    del other["0.bias"]
    assert dict(compare_weights(base, other, "2.weight").mismatches) == {
        "2.weight": "shape (4, 20) in the base, (5, 20) in the suspect",
        "extra": "the base has no such tensor",
        "0.bias": "the suspect has no such tensor",
    }


def test_half_precision_and_integers_are_compared(base):
    half = {name: value.half() if value.is_floating_point() else value + 1 for name, value in
            base.items()}  # fmt: skip
    found = {tensor.name: tensor for tensor in compare_weights(base, half).tensors}
    assert 0 < found["0.weight"].relative < 1e-3
    assert found["1.num_batches_tracked"].distance == 1


def test_models_without_a_common_tensor_are_refused(base):
    with pytest.raises(ValueError, match="no tensor of the same name and shape"):
        compare_weights(base, {"a": torch.zeros(1)})


def test_a_tensor_that_is_not_finite_is_named(base):
    bad = {**base, "0.bias": torch.full((20,), float("nan"))}
    with pytest.raises(ValueError, match=r"'0\.bias' holds NaN or inf"):
        compare_weights(base, bad)


def test_the_head_is_that_of_the_model():
    assert head_weight(net()) == "2.weight"
    assert head_weight(nn.Linear(3, 2)) == "weight"
    assert head_weight(nn.BatchNorm1d(3)) is None


def test_its_rows_can_be_read_again(base):
    edited = {**base, "2.weight": 2 * base["2.weight"], "extra": torch.zeros(1)}
    rows = compare_weights(base, edited, "2.weight").to_rows()
    tensors = read_rows(rows, TensorDifferenceRow)
    assert [row.name for row in tensors] == list(base)
    assert len(read_rows(rows, HeadRowDifference)) == 4
    assert [row.name for row in read_rows(rows, MismatchRow)] == ["extra"]
