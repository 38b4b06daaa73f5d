# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import torch

from d3fast.hub import Request, resolve
from d3fast.io.files import weights_digest
from tests.hub.programs.runtime import floats
from tests.io.onnx_files import classifier, field, model, node, tensor, weights


def changed(path, folder, name, change):
    suspect = resolve(Request(str(path)))
    with torch.no_grad():
        change(suspect.model.get_parameter(name))
    folder.mkdir()
    return suspect.model, suspect.save(suspect.model, folder)


def test_a_weight_that_did_not_change_keeps_its_bytes(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(classifier())
    model, written = changed(path, tmp_path / "out", "fc.weight", lambda weight: weight.add_(1))
    assert written == tmp_path / "out" / "repaired.onnx"
    old, new = path.read_bytes(), written.read_bytes()
    places = [at for at, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    start = old.index(weights()["fc.weight"].tobytes())
    assert start <= min(places) <= max(places) < start + weights()["fc.weight"].nbytes
    images = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(resolve(Request(str(written))).model(images), model(images))


def test_a_transposed_weight_and_halves_are_written_as_they_came(tmp_path):
    nodes = [node("Flatten", "x", "f"), node("MatMul", "f w", "y")]
    weight = floats(16, 3).astype("float16")
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, [tensor("w", weight)]))
    _, written = changed(path, tmp_path / "out", "head.weight", lambda w: w[0].zero_())
    wanted = weight.copy()
    wanted[:, 0] = 0
    assert wanted.tobytes() in written.read_bytes()


def test_a_file_with_tensors_beside_it_becomes_a_folder(tmp_path):
    parts = [field(13, field(1, "location") + field(2, "m.data")), field(14, 1)]
    held = [tensor("w", np.zeros((16, 3), "float32"), *parts, raw=False)]
    path = tmp_path / "m.onnx"
    path.write_bytes(model([node("Flatten", "x", "f"), node("MatMul", "f w", "y")], held))
    (tmp_path / "m.data").write_bytes(floats(16, 3).tobytes())
    _, written = changed(path, tmp_path / "out", "head.weight", lambda weight: weight.zero_())
    assert sorted(each.name for each in written.iterdir()) == ["m.data", "m.onnx"]
    assert Path(written, "m.data").read_bytes() == bytes(16 * 3 * 4)
    digest = weights_digest(written)
    Path(written, "m.data").write_bytes(b"\1" * 16 * 3 * 4)
    assert weights_digest(written) != digest
