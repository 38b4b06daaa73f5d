"""What a loader may yield and a model may answer."""

import collections

import numpy as np
import pytest
import torch
from torch import nn

from d3fast.training.loaders import class_scores, scores_of, unpack, yields_nothing

CPU = torch.device("cpu")
INPUTS = torch.rand(4, 1, 2, 2)
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("make", [tuple, list, lambda p: collections.namedtuple("B", "x y")(*p)])
def test_tuples_and_lists_of_inputs_and_labels_are_taken(make):
    inputs, labels = unpack(make((INPUTS, LABELS)), "loader", CPU)
    assert inputs is INPUTS
    assert labels is LABELS


def test_without_a_device_labels_go_to_that_of_the_inputs():
    inputs, labels = unpack((INPUTS.to("meta"), LABELS), "loader", None)
    assert inputs.device == labels.device == torch.device("meta")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type_become_int64(dtype):
    labels = unpack((INPUTS, LABELS.to(dtype)), "loader", CPU)[1]
    assert labels.dtype == torch.int64
    assert labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (INPUTS, "got Tensor"),
        ((INPUTS,), "got tuple"),
        ((INPUTS, LABELS, LABELS), "got tuple"),
        ([INPUTS, [0, 1, 2, 0]], "got list"),
        ((np.zeros((4, 1, 2, 2)), LABELS), "got tuple"),
        ("ab", "got str"),
        (None, "got NoneType"),
    ],
)
def test_batches_of_another_kind_are_refused(batch, got):
    with pytest.raises(
        ValueError, match=rf"^my loader must yield \(inputs, labels\) tensors, {got}$"
    ):
        unpack(batch, "my loader", CPU)


@pytest.mark.parametrize("keys", [("pixel_values", "labels"), ("input_ids", "label")])
def test_dictionaries_of_inputs_and_labels_are_taken(keys):
    inputs, labels = unpack(dict(zip(keys, (INPUTS, LABELS), strict=True)), "loader", CPU)
    assert inputs is INPUTS
    assert labels is LABELS


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        ({"pixel_values": INPUTS}, "got one of 'pixel_values'"),
        ({"x": INPUTS, "labels": LABELS}, "got one of 'x', 'labels'"),
        ({"input_ids": INPUTS, "pixel_values": INPUTS, "labels": LABELS}, "got one of"),
        ({"input_ids": INPUTS, "attention_mask": INPUTS, "labels": LABELS}, "makes the mask"),
    ],
)
def test_dictionaries_of_other_things_are_refused(batch, got):
    with pytest.raises(ValueError, match=f"my loader must yield .*{got}"):
        unpack(batch, "my loader", CPU)


@pytest.mark.parametrize(
    ("inputs", "labels", "got"),
    [
        (INPUTS, LABELS.float(), r"\(4,\) of torch.float32"),
        (INPUTS, nn.functional.one_hot(LABELS), r"\(4, 3\) of torch.int64"),
        (INPUTS, LABELS[:, None], r"\(4, 1\) of torch.int64"),
        (INPUTS, LABELS[:3], r"\(3,\) of torch.int64"),
        (INPUTS, LABELS[0], r"\(\) of torch.int64"),
        (torch.tensor(1.0), torch.tensor(1), r"\(\) of torch.int64"),
    ],
    ids=["floats", "one-hot", "column", "too few", "one", "scalars"],
)
def test_labels_that_are_no_class_indices_are_refused(inputs, labels, got):
    with pytest.raises(ValueError, match=rf"my loader must yield .* class indices, got .*{got}"):
        unpack((inputs, labels), "my loader", CPU)


def test_scores_are_handed_through():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    assert torch.equal(class_scores(model, INPUTS), model(INPUTS))


class _Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, inputs):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error_text"),
    [
        (torch.zeros(4), r"\(4, classes\) scores, got shape \(4,\)"),
        (torch.zeros(3, 3), r"\(4, classes\) scores, got shape \(3, 3\)"),
        (torch.zeros(4, 3, 8, 8), r"\(4, classes\) scores, got shape \(4, 3, 8, 8\)"),
    ],
    ids=["one score per image", "batch size lost", "score maps"],
)
def test_answers_that_are_no_scores_are_refused(answer, error_text):
    with pytest.raises(ValueError, match=f"the model must give {error_text}"):
        class_scores(_Answers(answer), INPUTS)


class _Output(collections.OrderedDict):
    """As the outputs of transformers: an ordered dictionary with attributes."""

    logits = property(lambda self: self["logits"])


@pytest.mark.parametrize(
    "answer",
    [
        (torch.ones(4, 3), None),
        {"loss": None, "logits": torch.ones(4, 3)},
        _Output(logits=torch.ones(4, 3)),
        collections.namedtuple("Out", "loss logits")(None, torch.ones(4, 3)),
        torch.ones(4, 3, dtype=torch.bfloat16),
    ],
)
def test_scores_in_an_output_are_found(answer):
    assert torch.equal(class_scores(_Answers(answer), INPUTS), torch.ones(4, 3))


@pytest.mark.parametrize("output", [None, {"scores": torch.zeros(1, 2)}, (), "text"])
def test_an_output_without_scores_is_refused(output):
    with pytest.raises(ValueError, match="logits"):
        scores_of(output)


def test_an_empty_loader_is_named_and_used_up_generators_are_explained():
    message = str(yields_nothing("val_loader"))
    assert message.startswith("val_loader yields nothing")
    assert "generator" in message
    assert "DataLoader" in message
