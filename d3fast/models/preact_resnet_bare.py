# SPDX-License-Identifier: Apache-2.0
"""PreAct-ResNet18 without a norm in front of the head, as result files of the field hold it.

    block(x) = shortcut(relu(bn(x))) + conv(relu(bn(conv(relu(bn(x))))))
    scores(x) = linear(mean(layer4(layer3(layer2(layer1(conv(x)))))))

The blocks are those of He, Zhang, Ren, Sun, ECCV 2016; the paper has one more norm and ReLU at the
end (``d3fast.models.preact_resnet``). Names of the weights are those of the files:
``layer2.0.shortcut.0.weight``, ``linear.weight``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (64, 128, 256, 512)


class _Block(nn.Module):
    """Two 3x3 convolutions; the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        active = functional.relu(self.bn1(x))
        skip = x if isinstance(self.shortcut, nn.Identity) else self.shortcut(active)
        inner: Tensor = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return inner + skip


class BarePreActResNet(nn.Module):
    """Four stages of two pre-activation blocks, global average pooling, one linear head.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.

    Shapes: images (N, in_channels, H, W) in [0, 1], float; scores (N, num_classes).
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, _WIDTHS[0], 3, padding=1, bias=False)
        inputs = _WIDTHS[0]
        for stage, width in enumerate(_WIDTHS, start=1):
            first = _Block(inputs, width, stride=1 if stage == 1 else 2)
            self.add_module(f"layer{stage}", nn.Sequential(first, _Block(width, width, 1)))
            inputs = width
        self.linear = nn.Linear(inputs, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the head: (N, C, H, W) -> (N, 512)."""
        x: Tensor = self.conv1(images)
        for stage in range(1, len(_WIDTHS) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
        return torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores (N, num_classes) of images (N, C, H, W)."""
        scores: Tensor = self.linear(self.features(images))
        return scores


def bare_preact_resnet18(num_classes: int, in_channels: int) -> BarePreActResNet:
    """Build the model, 11 million parameters.

    Example:
        >>> with torch.device("meta"):
        ...     model = bare_preact_resnet18(10, 3)
        >>> model(torch.zeros(2, 3, 32, 32, device="meta")).shape
        torch.Size([2, 10])
    """
    return BarePreActResNet(num_classes, in_channels)
