# SPDX-License-Identifier: Apache-2.0
import pickle

from d3fast.hub import ImageInput, Request


def test_a_request_and_an_input_can_be_sent_to_another_process():
    for value in (Request("timm:resnet18", answers=("yes", "no")), ImageInput(3, (224, 224), 256)):
        assert pickle.loads(pickle.dumps(value)) == value
