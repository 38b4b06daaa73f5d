# SPDX-License-Identifier: Apache-2.0
"""The recipe for texts: the last third of the blocks, or more of them as far as accuracy allows."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from d3fast.detox import detoxify
from d3fast.detox.text_recipe import BATCH_SIZE, text_recipe
from d3fast.text import TextClassifier
from tests.text.tiny import bert, text_data


class Block(nn.Module):
    """Two matrices and a normalisation."""

    def __init__(self):
        super().__init__()
        self.inner, self.norm, self.output = nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)


class Encoder(nn.Module):
    """Embeddings, blocks with normalisation, a pooler and a head."""

    def __init__(self, blocks):
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.layers = nn.ModuleList(Block() for _ in range(blocks))
        self.pooler, self.classifier = nn.Linear(4, 4), nn.Linear(4, 2)


def tracked(model):
    pattern = re.compile(text_recipe(model).track)
    return [name for name, _ in model.named_parameters() if pattern.search(name)]


@pytest.mark.parametrize(("blocks", "first"), [(2, 1), (3, 2), (6, 4), (12, 8)])
def test_it_tracks_the_matrices_of_the_last_third_and_behind(blocks, first):
    expected = [f"layers.{i}.{j}.weight" for i in range(first, blocks) for j in ("inner", "output")]
    assert tracked(Encoder(blocks)) == [*expected, "pooler.weight", "classifier.weight"]


def test_the_search_begins_with_all_blocks():
    assert text_recipe(Encoder(6)).restart == "auto-all"


def test_it_repairs_a_transformer_on_batches_of_texts():
    pytest.importorskip("transformers", reason="makes a BERT")
    suspect, data = TextClassifier(bert(), pad=0), text_data(64)
    config = replace(text_recipe(suspect), restart=0)
    batches = data.batches(BATCH_SIZE, torch.Generator().manual_seed(0))
    found = detoxify(suspect, batches, config, data.batches(32), progress=False)
    assert found.acc_drop is not None
    before, after = suspect.state_dict(), found.model.state_dict()
    moved = {
        name
        for name, value in before.items()
        if value.ndim > 1 and (after[name] - value).norm() > 0.5 * value.norm()
    }
    assert moved == {name for name in before if re.search(config.track, name)}
    for name in moved:
        torch.testing.assert_close(after[name].norm(), before[name].norm(), rtol=1e-3, atol=0)
