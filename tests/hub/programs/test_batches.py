# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
import torch

from d3fast.hub.programs.batches import free_batch
from tests.hub.programs.runtime import built, floats, ints
from tests.io.onnx_files import classifier, model, node, tensor

SHAPE = (2, 1, 4, 4)


def fixed(folder, content, batch):
    program = built(folder, content, SHAPE).program
    program.form = replace(program.form, batch=batch)
    return program, free_batch(program)


def test_a_fixed_batch_that_changes_no_score_is_dropped(tmp_path):
    program, (said,) = fixed(tmp_path, classifier(batch=1), 1)
    assert program.form.batch is None
    assert "Larger batches" in said


def test_a_batch_that_is_a_part_of_the_graph_is_kept(tmp_path):
    nodes = [node("Reshape", "x t", "f"), node("MatMul", "f w", "y")]
    held = [tensor("t", ints(2, 16)), tensor("w", floats(16, 3))]
    program, (said,) = fixed(tmp_path, model(nodes, held, shape=SHAPE), 2)
    assert program.form.batch == 2
    assert "2 at a time" in said
    assert program(torch.rand(5, 1, 4, 4)).shape == (5, 3)


def test_scores_that_depend_on_the_batch_keep_it(tmp_path):
    nodes = [
        node("ReduceMean", "x", "m", axes=[0]),
        node("Sub", "x m", "c"),
        node("Flatten", "c", "y"),
    ]
    program, _ = fixed(tmp_path, model(nodes, shape=SHAPE), 2)
    assert program.form.batch == 2


def test_a_program_that_does_not_run_is_refused(tmp_path):
    nodes = [node("Reshape", "x t", "y")]
    with pytest.raises(ValueError, match="does not run"):
        fixed(tmp_path, model(nodes, [tensor("t", ints(7, 5))], shape=SHAPE), None)
