# SPDX-License-Identifier: Apache-2.0
"""Implementations of the step: plain PyTorch, C++/CUDA kernels, torch.compile, shards."""
