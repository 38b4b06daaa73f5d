"""The digest of an architecture."""

import torch
from torch import nn

from d3fast.audit.architecture import architecture_digest
from d3fast.hub.classifier import Classifier
from d3fast.models import make_model


def test_it_knows_names_and_shapes_and_no_values():
    def digest(name="preact_resnet_tiny", classes=10, channels=1):
        return architecture_digest(make_model(name, classes, channels))

    assert digest() == digest()
    assert len({digest(), digest(classes=11), digest(channels=3), digest("vit_tiny")}) == 4


def test_a_normalisation_in_front_is_no_other_architecture():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    wrapped = Classifier(model, (0.5,), (0.5,))
    assert architecture_digest(wrapped) == architecture_digest(model)


def test_buffers_count():
    plain, tracked = nn.BatchNorm1d(3, track_running_stats=False), nn.BatchNorm1d(3)
    assert architecture_digest(plain) != architecture_digest(tracked)
    tracked.running_mean += torch.ones(3)
    assert architecture_digest(tracked) == architecture_digest(nn.BatchNorm1d(3))
