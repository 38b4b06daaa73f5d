# SPDX-License-Identifier: Apache-2.0
"""How a step is computed: plain PyTorch, the C++/CUDA kernels, torch.compile, shards."""
