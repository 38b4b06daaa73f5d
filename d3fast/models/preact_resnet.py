# SPDX-License-Identifier: Apache-2.0
"""Pre-activation residual networks (He, Zhang, Ren, Sun, ECCV 2016) of any width and depth.

    block(x) = shortcut + conv(relu(bn(conv(relu(bn(x))))))

The stem and every stage after the first may halve the resolution; the width doubles from stage
to stage. Works for any number of channels, any image size and any number of classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.runtime.checks import check_integer


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU, around a shortcut.

    The shortcut is the identity if shapes allow, otherwise a 1x1 convolution of the activated
    input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        active = functional.relu(self.norm1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        inner: Tensor = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        return inner + skip


class PreActResNet(nn.Module):
    """Pre-activation ResNet with global average pooling and one linear head.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        width: channels of the first stage; doubles with every stage.
        blocks: blocks per stage.
        stem_stride: 2 halves the resolution in the stem: faster on a CPU from 28 pixels on.

    Shapes: images (N, in_channels, H, W) in [0, 1], float; scores (N, num_classes).

    Raises:
        ValueError: a size below 1.

    Example:
        >>> model = PreActResNet(num_classes=10, in_channels=1, width=8, blocks=(1, 1))
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
        >>> model.head
        Linear(in_features=16, out_features=10, bias=True)
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        sizes = {
            "num_classes": num_classes,
            "in_channels": in_channels,
            "width": width,
            "stem_stride": stem_stride,
            "blocks": min(blocks, default=0),
        }
        for name, value in sizes.items():
            check_integer(name, value, 1)
        self.stem = _conv(in_channels, width, 3, stem_stride)
        stages = []
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(PreActBlock(inputs, outputs, stride))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the head: (N, C, H, W) -> (N, head.in_features)."""
        active = functional.relu(self.norm(self.blocks(self.stem(images))))
        return torch.flatten(functional.adaptive_avg_pool2d(active, 1), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores (N, num_classes) of images (N, C, H, W)."""
        scores: Tensor = self.head(self.features(images))
        return scores


def preact_resnet18(num_classes: int, in_channels: int) -> PreActResNet:
    """Build PreAct-ResNet18: width 64, four stages of two blocks, 11 million parameters."""
    return PreActResNet(num_classes, in_channels, width=64, blocks=(2, 2, 2, 2))


def preact_resnet_narrow(num_classes: int, in_channels: int) -> PreActResNet:
    """Build a model of width 32, three stages of one block, 0.3 million parameters, for CPUs."""
    return PreActResNet(num_classes, in_channels, width=32, blocks=(1, 1, 1))


def preact_resnet_tiny(num_classes: int, in_channels: int) -> PreActResNet:
    """Build a model of width 16, three stages of one block, 78 thousand parameters, for CPUs."""
    return PreActResNet(num_classes, in_channels, width=16, blocks=(1, 1, 1), stem_stride=2)
