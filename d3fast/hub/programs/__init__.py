# SPDX-License-Identifier: Apache-2.0
"""Programs of strangers as modules, by a fixed list of operators: nothing else is run.

program       values and steps: the module
measure       what a run takes, found on tensors without values before any weight is read
input_form    how a program takes images
onnx_*        ONNX files
aten_*        archives of torch.export
batches       whether a fixed batch matters
"""
