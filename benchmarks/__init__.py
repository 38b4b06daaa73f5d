# SPDX-License-Identifier: Apache-2.0
"""Benchmarks and studies of d3fast; see ``benchmarks/README.md``.

speed      time, memory and traffic of a step and of a repair (``make bench``)
studies    studies that the documentation quotes (``python -m benchmarks.studies``)
gpu        checks on a machine with a GPU (``make gpu-check``)
results    committed result files (JSON)
"""
