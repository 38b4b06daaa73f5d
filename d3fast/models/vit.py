# SPDX-License-Identifier: Apache-2.0
"""Vision transformers (Dosovitskiy et al., ICLR 2021) of any patch, width and depth.

    tokens = [class token, patches] + positions
    block(t) = t' + mlp(norm(t'))  with  t' = t + attention(norm(t))
    scores = head(norm(first token))

The position embeddings are learned for the grid of ``image_size``. For images of another size they
are interpolated linearly in both directions, as in the paper; sides must be multiples of the patch.
Encoder blocks are torch's ``TransformerEncoderLayer``; names in the state dict are not
torchvision's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.runtime.checks import check_integer


class VisionTransformer(nn.Module):
    """Pre-norm transformer encoder over image patches, with a class token and one linear head.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        image_size: side in pixels that positions are learned for; a multiple of ``patch``.
        patch: side of a patch in pixels.
        width: size of a token; a multiple of ``heads``.
        depth: number of blocks.
        heads: attention heads.
        mlp_width: hidden width of a block's two-layer GELU network; ``4 * width`` if ``None``.

    Shapes: images (N, in_channels, H, W) in [0, 1], float, H and W multiples of ``patch``;
    scores (N, num_classes).

    Second derivatives need ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)`` around the forward
    pass: torch's fast attention has none.

    Raises:
        ValueError: a size below 1; an ``image_size`` or ``width`` that is not such a multiple.

    Example:
        >>> model = VisionTransformer(10, 1, image_size=28, patch=7, width=16, depth=1, heads=2)
        >>> model(torch.zeros(2, 1, 28, 28)).shape, model(torch.zeros(2, 1, 14, 35)).shape
        (torch.Size([2, 10]), torch.Size([2, 10]))
        >>> model(torch.zeros(2, 1, 32, 32))
        Traceback (most recent call last):
            ...
        ValueError: images must have sides that are multiples of 7 pixels, got 32x32
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        image_size: int = 224,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_width: int | None = None,
    ) -> None:
        super().__init__()
        mlp_width = 4 * width if mlp_width is None else mlp_width
        sizes = {
            "num_classes": num_classes,
            "in_channels": in_channels,
            "image_size": image_size,
            "patch": patch,
            "width": width,
            "depth": depth,
            "heads": heads,
            "mlp_width": mlp_width,
        }
        for name, value in sizes.items():
            check_integer(name, value, 1)
        for name, unit in (("image_size", "patch"), ("width", "heads")):
            if sizes[name] % sizes[unit]:
                raise ValueError(
                    f"{name} must be a multiple of {unit}={sizes[unit]}, got {sizes[name]}"
                )
        self.patch = patch
        self.grid = image_size // patch
        self.patches = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + self.grid**2, width))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    width,
                    heads,
                    mlp_width,
                    dropout=0.0,
                    activation="gelu",
                    layer_norm_eps=1e-6,
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        # Pixels are about 1/2. Patches and positions start at size 1 each, so that attention can
        # distinguish positions at once: plain SGD is slow to learn it from smaller values.
        nn.init.normal_(self.class_token, std=0.02)
        nn.init.normal_(self.positions, std=1.0)
        nn.init.normal_(self.patches.weight, std=2 * self.patches.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.patches.bias)  # type: ignore[arg-type]
        for module in self.modules():  # attention starts from torch's own Xavier
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Return position embeddings (1, 1 + rows * columns, width)."""
        if rows == columns == self.grid:
            return self.positions
        # Two small matrices: the backward pass of torch's interpolation is not deterministic.
        identity = torch.eye(self.grid, device=self.positions.device)
        down, across = (
            functional.interpolate(identity[None], size=size, mode="linear")[0].to(self.positions)
            for size in (rows, columns)
        )
        grid = self.positions[0, 1:].view(self.grid, self.grid, -1)
        moved = torch.einsum("yxd,yr,xc->rcd", grid, down, across).flatten(0, 1)
        return torch.cat([self.positions[:, :1], moved[None]], dim=1)

    def features(self, images: Tensor) -> Tensor:
        """Return the class token, the input of the head: (N, C, H, W) -> (N, head.in_features).

        Raises:
            ValueError: H or W is not a multiple of the patch.
        """
        height, width = images.shape[-2:]
        if height % self.patch or width % self.patch or not height * width:
            raise ValueError(
                f"images must have sides that are multiples of {self.patch} pixels, "
                f"got {height}x{width}"
            )
        patches = self.patches(images)  # (N, width, rows, columns)
        tokens = torch.cat(
            [self.class_token.expand(len(images), -1, -1), patches.flatten(2).mT], dim=1
        )
        tokens = tokens + self._positions(*patches.shape[-2:])
        token: Tensor = self.norm(self.blocks(tokens)[:, 0])
        return token

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores (N, num_classes) of images (N, C, H, W)."""
        scores: Tensor = self.head(self.features(images))
        return scores


def vit_b_16(num_classes: int, in_channels: int) -> VisionTransformer:
    """Build ViT-B/16: patch 16, width 768, twelve blocks, 86 million parameters, 224 pixels."""
    return VisionTransformer(num_classes, in_channels, 224, 16, width=768, depth=12, heads=12)


def vit_tiny(num_classes: int, in_channels: int) -> VisionTransformer:
    """Build a small model: patch 4, width 64, four blocks, 0.1 million parameters."""
    return VisionTransformer(
        num_classes, in_channels, 28, 4, width=64, depth=4, heads=4, mlp_width=128
    )
