# SPDX-License-Identifier: Apache-2.0
"""Parameter shapes of known architectures.

An optimizer needs only the shapes: no model is built and no weight is loaded. Every list names the
weight of its classification head, the tensor that D3 tracks by default.

Sources: He et al., CVPR 2016 (ResNet-18); Simonyan and Zisserman, ICLR 2015, with batch norm
(VGG19-BN); Dosovitskiy et al., ICLR 2021 (ViT-B/16); Radford et al. 2019 (GPT-2's layout);
Grattafiori et al. 2024, arXiv 2407.21783, table 3, and the published configurations (Llama).
"""

from dataclasses import dataclass
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ParameterList:
    """Parameter shapes of one model.

    Attributes:
        name: name of the architecture.
        shapes: by parameter name, in the model's order.
        head: name of the classification head's weight.
    """

    name: str
    shapes: dict[str, Shape]
    head: str

    @property
    def numel(self) -> int:
        """Number of parameters.

        Example:
            >>> [f"{m.numel / 1e6:.2f}" for m in (resnet18(), vgg19_bn(), vit_b16())]
            ['11.69', '143.68', '86.57']
        """
        return sum(prod(shape) for shape in self.shapes.values())


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, Shape]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def resnet18(classes: int = 1000) -> ParameterList:
    """ResNet-18: four stages of two blocks of two 3x3 convolutions, no biases but the head's."""
    shapes: dict[str, Shape] = {"stem.weight": (64, 3, 7, 7), **_norm("stem.norm", 64)}
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            at = f"stage{stage}.{block}"
            shapes |= {f"{at}.conv1.weight": (width, inputs, 3, 3), **_norm(f"{at}.norm1", width)}
            shapes |= {f"{at}.conv2.weight": (width, width, 3, 3), **_norm(f"{at}.norm2", width)}
            if inputs != width:
                shapes[f"{at}.shortcut.weight"] = (width, inputs, 1, 1)
                shapes |= _norm(f"{at}.shortcut.norm", width)
            inputs = width
    return ParameterList("ResNet-18", shapes | _linear("fc", 512, classes), "fc.weight")


def vgg19_bn(classes: int = 1000) -> ParameterList:
    """VGG19-BN: sixteen 3x3 convolutions with biases and batch norm, three linear layers."""
    shapes: dict[str, Shape] = {}
    inputs = 3
    for stage, (width, convolutions) in enumerate(
        ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
    ):
        for layer in range(convolutions):
            at = f"stage{stage}.{layer}"
            shapes |= {f"{at}.weight": (width, inputs, 3, 3), f"{at}.bias": (width,)}
            shapes |= _norm(f"{at}.norm", width)
            inputs = width
    shapes |= _linear("fc1", 512 * 7 * 7, 4096) | _linear("fc2", 4096, 4096)
    return ParameterList("VGG19-BN", shapes | _linear("fc3", 4096, classes), "fc3.weight")


def vit_b16(classes: int = 1000) -> ParameterList:
    """ViT-B/16 at 224 pixels: width 768, twelve layers, 196 patches and a class token."""
    width = 768
    shapes: dict[str, Shape] = {
        "class_token": (1, 1, width),
        "positions": (1, 14 * 14 + 1, width),
        "patches.weight": (width, 3, 16, 16),
        "patches.bias": (width,),
    }
    for layer in range(12):
        at = f"layer{layer}"
        shapes |= _norm(f"{at}.norm1", width) | _linear(f"{at}.qkv", width, 3 * width)
        shapes |= _linear(f"{at}.out", width, width) | _norm(f"{at}.norm2", width)
        shapes |= _linear(f"{at}.up", width, 4 * width) | _linear(f"{at}.down", 4 * width, width)
    shapes |= _norm("norm", width) | _linear("head", width, classes)
    return ParameterList("ViT-B/16", shapes, "head.weight")


def transformer_1b() -> ParameterList:
    """A decoder of a billion parameters: width 1792, 24 layers, a vocabulary of 50257, no tying.

    Example:
        >>> f"{transformer_1b().numel / 1e9:.2f}"
        '1.11'
    """
    width, vocabulary = 1792, 50257
    shapes: dict[str, Shape] = {"tokens": (vocabulary, width), "positions": (1024, width)}
    for layer in range(24):
        at = f"layer{layer}"
        shapes |= _norm(f"{at}.norm1", width) | _linear(f"{at}.qkv", width, 3 * width)
        shapes |= _linear(f"{at}.out", width, width) | _norm(f"{at}.norm2", width)
        shapes |= _linear(f"{at}.up", width, 4 * width) | _linear(f"{at}.down", 4 * width, width)
    shapes |= {**_norm("norm", width), "head.weight": (vocabulary, width)}
    return ParameterList("transformer 1B", shapes, "head.weight")


def _llama(
    name: str, width: int, layers: int, heads: int, head_width: int, mlp: int, tied: bool
) -> ParameterList:
    """Return a decoder of the Llama 3 family: 8 heads of keys and values, a vocabulary of 128256.

    The parameters have the names that transformers gives them.
    """
    vocabulary, keys = 128256, 8 * head_width
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.self_attn.q_proj.weight": (heads * head_width, width),
            f"{at}.self_attn.k_proj.weight": (keys, width),
            f"{at}.self_attn.v_proj.weight": (keys, width),
            f"{at}.self_attn.o_proj.weight": (width, heads * head_width),
            f"{at}.mlp.gate_proj.weight": (mlp, width),
            f"{at}.mlp.up_proj.weight": (mlp, width),
            f"{at}.mlp.down_proj.weight": (width, mlp),
            f"{at}.input_layernorm.weight": (width,),
            f"{at}.post_attention_layernorm.weight": (width,),
        }
    shapes["model.norm.weight"] = (width,)
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, width)
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    return ParameterList(name, shapes, head)


def llama_1b() -> ParameterList:
    """Return the shapes of Llama 3.2 1B, whose head is tied to the embedding.

    Example:
        >>> [f"{m.numel / 1e9:.2f}" for m in (llama_1b(), llama_8b(), llama_70b())]
        ['1.24', '8.03', '70.55']
    """
    return _llama("1B", 2048, 16, 32, 64, 8192, tied=True)


def llama_8b() -> ParameterList:
    """Return the shapes of Llama 3 8B."""
    return _llama("8B", 4096, 32, 32, 128, 14336, tied=False)


def llama_70b() -> ParameterList:
    """Return the shapes of Llama 3 70B."""
    return _llama("70B", 8192, 80, 64, 128, 28672, tied=False)
