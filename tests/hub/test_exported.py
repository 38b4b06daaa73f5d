# SPDX-License-Identifier: Apache-2.0
import warnings

import pytest
import torch

from d3fast.hub import Request, resolve


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("m.TorchScript", "is TorchScript, a program"),
        ("m.pte", "compiled program"),
        ("m.gguf", r"llama\.cpp"),
        ("m.h5", "Keras"),
        ("m.pkl", "can run code"),
    ],
)
def test_a_program_is_refused_with_the_reason_and_the_way_out(tmp_path, name, reason):
    (tmp_path / name).write_bytes(b"program")
    for request in (Request(str(tmp_path / name)), Request("timm:resnet18", tmp_path / name)):
        with pytest.raises(ValueError, match=rf"{reason}.*state_dict\(\) as \.safetensors"):
            resolve(request)


def test_a_folder_or_an_address_of_such_a_name_is_left_to_others(tmp_path):
    (tmp_path / "m.ts").mkdir()
    with pytest.raises(ValueError, match=r"m\.ts") as caught:
        resolve(Request(str(tmp_path / "m.ts")))
    assert "TorchScript" not in str(caught.value)


def test_torchscript_under_another_name_is_refused_too(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)).save(str(tmp_path / "m.pt"))
    with pytest.raises(ValueError, match="it is TorchScript, a program"):
        resolve(Request(str(tmp_path / "m.pt")))
