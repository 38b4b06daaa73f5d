# SPDX-License-Identifier: Apache-2.0
"""VGG with batch norm (Simonyan and Zisserman, ICLR 2015), in its form for small images.

    stage(x) = maxpool(relu(bn(conv(... relu(bn(conv(x)))))))

Every stage ends in a pool that halves the resolution, rounded up, so images of any size work.
Global average pooling and one linear layer replace the three wide layers of the paper, which are
for images of 224 pixels. The state dict therefore differs from torchvision's, where convolutions
have biases and the classifier has three layers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.runtime.checks import check_integer

_VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


class VGG(nn.Module):
    """Stages of 3x3 convolutions with batch norm, global average pooling and one linear head.

    Convolutions have no bias, which batch norm would cancel, and start from He's normal
    distribution (fan out).

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        stages: (width, number of convolutions) of every stage.

    Shapes: images (N, in_channels, H, W) in [0, 1], float; scores (N, num_classes).

    Raises:
        ValueError: a size below 1, or no stage.

    Example:
        >>> model = VGG(num_classes=10, in_channels=1, stages=((8, 1), (16, 2)))
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
        >>> model.head
        Linear(in_features=16, out_features=10, bias=True)
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        stages: Sequence[tuple[int, int]] = _VGG19,
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, 1)
        check_integer("in_channels", in_channels, 1)
        check_integer("stages", min((min(stage) for stage in stages), default=0), 1)
        layers: list[nn.Module] = []
        inputs = in_channels
        for width, convolutions in stages:
            for _ in range(convolutions):
                conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Return the input of the head: (N, C, H, W) -> (N, head.in_features)."""
        return torch.flatten(functional.adaptive_avg_pool2d(self.layers(images), 1), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores (N, num_classes) of images (N, C, H, W)."""
        scores: Tensor = self.head(self.features(images))
        return scores


def vgg19_bn(num_classes: int, in_channels: int) -> VGG:
    """Build VGG19-BN for small images: sixteen convolutions and a head, 20 million parameters."""
    return VGG(num_classes, in_channels, _VGG19)
