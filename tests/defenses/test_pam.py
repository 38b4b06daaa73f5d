"""PAM: one inversion from the suspect, gradients on the way back to it."""

import torch
from torch import nn

from d3fast.defenses.bti_dbf import BTIDBF, InversionByFeatures
from d3fast.defenses.pam import PAM
from d3fast.testing.toys import batches, conv_model

SHORT = InversionByFeatures(mask_steps=2, steps=2)


def _without_dropout():
    return nn.Sequential(*(m for m in conv_model() if not isinstance(m, nn.Dropout)))


def test_without_a_way_back_it_is_unlearning_of_one_inversion():
    pam = PAM(epochs=3, rho=0.0, share=1.0, inversion=SHORT)
    unlearning = BTIDBF(epochs=3, every=3, inversion=SHORT)
    first, second = (
        one(_without_dropout(), batches(), None, progress=False).model for one in (pam, unlearning)
    )
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_way_back_changes_what_is_learned():
    one, other = (
        PAM(epochs=3, rho=rho, lr=0.1, inversion=SHORT)(
            _without_dropout(), batches(), None, progress=False
        ).model
        for rho in (0.0, 0.5)
    )
    assert not torch.equal(one[0].weight, other[0].weight)


def test_its_defaults_are_the_papers():
    assert (PAM().rho, PAM().share) == (0.5, 0.25)  # a fifth of a batch is triggered
