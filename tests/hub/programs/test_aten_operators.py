# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from d3fast.hub.programs.aten_graph import AtenNode, Value
from d3fast.hub.programs.aten_operators import (
    OPERATORS,
    VIEWS,
    AtenStep,
    check_targets,
    plain_target,
)

OWN = {"_operator", "sym_size", "_assert_tensor_metadata"}  # computed by d3fast
SCHEMAS = {
    name: getattr(getattr(torch.ops.aten, name.split(".")[0]), name.split(".")[1])._schema
    for name in OPERATORS
    if name.split(".")[0] not in OWN
}


def node(target, **given):
    return AtenNode(target, tuple(given.items()), ("y",))


@pytest.mark.parametrize(
    "target", ["os.system", "evil.run.default", "item.default", "set_.source", "_operator.call"]
)
def test_an_operator_that_is_not_listed_is_refused(target):
    with pytest.raises(ValueError, match="which is not run"):
        check_targets([node("relu.default"), node(target)])


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        check_targets([node("dropout.default", train=True)])


def test_every_operator_is_one_of_torch_and_changes_nothing():
    def changes(schema):
        infos = [argument.alias_info for argument in schema.arguments]
        return any(info is not None and info.is_write for info in infos)

    assert [name for name, schema in SCHEMAS.items() if changes(schema)] == ["detach_.default"]


def test_every_operator_whose_output_is_a_view_is_listed():
    def views(schema):
        return any(returned.alias_info is not None for returned in schema.returns)

    assert {name for name, schema in SCHEMAS.items() if views(schema)} <= VIEWS


def test_a_step_fills_in_values():
    step = AtenStep(node("cat.default", tensors=[Value("a"), Value("b")], dim=0))
    (made,) = step(None, {"a": torch.ones(1), "b": torch.zeros(1)})
    assert made.tolist() == [1, 0]
    assert step.inputs == ("a", "b")


def test_sizes_are_computed_and_nothing_else():
    (made,) = AtenStep(node("_operator.mul", a=Value("n"), b=3))(None, {"n": 4})
    assert made == 12
    for given in ({"a": "text", "b": 10**9}, {"a": 2**50, "b": 2}, {"a": [1], "b": 10**9}):
        with pytest.raises(ValueError, match="no sizes"):
            AtenStep(node("_operator.mul", **given))(None, {})
    with pytest.raises(ValueError, match="no sizes"):
        AtenStep(node("_operator.pow", a=10, b=10**6))(None, {})


def test_an_index_must_not_be_a_mask():
    with pytest.raises(ValueError, match="mask"):
        OPERATORS["index.Tensor"](self=torch.ones(2), indices=[torch.tensor([True, False])])


def test_operators_in_place_have_others():
    assert plain_target("relu_.default") == "relu.default"
    assert plain_target("_to_copy.default") == "_to_copy.default"
