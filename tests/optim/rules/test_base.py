"""What every rule promises, and the dtype of its buffers."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedAdamW, D3FusedSGD
from d3fast.optim.rules import RULES, rule_of
from d3fast.optim.rules.base import buffer_dtype

OPTIMIZERS = {"SGD": D3FusedSGD, "AdamW": D3FusedAdamW}


def group_of(name, **options):
    p = nn.Parameter(torch.ones(2, 2))
    return OPTIMIZERS[name]([p], **options).param_groups[0]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_group_has_the_options_of_its_rule_and_no_others(rule):
    group = group_of(rule.name)
    assert rule_of(group) is rule
    assert all(name in group for name in rule.options)
    others = [name for other in RULES if other is not rule for name in other.options]
    assert not any(name in group for name in others)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_numbers_and_variant_hold_all_options_that_a_compiled_step_needs(rule):
    group = group_of(rule.name)
    rebuilt = rule.from_numbers(rule.variant(group), rule.numbers(group))
    assert rebuilt == {name: group[name] for name in rule.options if name != "amsgrad"}


@pytest.mark.parametrize(
    ("weights", "momentum_dtype", "momentum", "variance"),
    [
        (torch.float32, None, torch.float32, torch.float32),
        (torch.float64, None, torch.float64, torch.float64),
        (torch.bfloat16, None, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32, torch.float32),
    ],
)
def test_a_second_moment_is_never_of_a_half_type(weights, momentum_dtype, momentum, variance):
    p, group = torch.ones(2, dtype=weights), {"momentum_dtype": momentum_dtype}
    assert buffer_dtype("momentum", p, group) == momentum
    assert buffer_dtype("variance", p, group) == variance
