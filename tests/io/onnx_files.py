# SPDX-License-Identifier: Apache-2.0
"""Writes ONNX files byte by byte: also those that no library would write."""

import struct

import numpy as np

FLOAT, UINT8, INT64 = 1, 2, 7
_KINDS = {"float32": 1, "uint8": 2, "int64": 7, "int32": 6, "bool": 9, "float16": 10}


def varint(value):
    value &= 2**64 - 1
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number, value):
    """A number, a float, a text or bytes as a field of a message."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def tensor(name, value, *more, raw=True):
    value = np.asarray(value)
    dims = b"".join(field(1, size) for size in value.shape)
    kind = field(2, _KINDS[str(value.dtype)])
    return (
        dims + kind + field(8, name) + (field(9, value.tobytes()) if raw else b"") + b"".join(more)
    )


def attribute(name, value):
    if isinstance(value, bytes):
        return field(1, name) + field(5, value) + field(20, 4)
    if isinstance(value, list):
        number = 7 if isinstance(value[0], float) else 8
        return field(1, name) + b"".join(field(number, v) for v in value) + field(20, number - 1)
    number, kind = {int: (3, 2), float: (2, 1), str: (4, 3)}[type(value)]
    return field(1, name) + field(number, value) + field(20, kind)


def node(op, inputs, outputs, domain="", **attributes):
    parts = [field(1, name) for name in inputs.split()]
    parts = [field(1, "" if name == "-" else name) for name in inputs.split()]
    parts += [field(2, name) for name in outputs.split()]
    parts += [field(4, op)]
    parts += [field(5, attribute(name, value)) for name, value in attributes.items()]
    return b"".join(parts) + (field(7, domain) if domain else b"")


def declared(name, kind, shape):
    sizes = b"".join(field(1, field(2, "n") if n is None else field(1, n)) for n in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, sizes)))


def graph(nodes, tensors=(), *, shape=(None, 1, 4, 4), kind=FLOAT, outputs=("y",), more=b""):
    parts = [field(1, each) for each in nodes] + [field(5, each) for each in tensors]
    parts.append(field(11, declared("x", kind, shape)))
    parts += [field(12, field(1, name) + field(2, field(1, field(1, FLOAT)))) for name in outputs]
    return b"".join(parts) + field(2, "g") + more


def model(nodes, tensors=(), *, opset=17, **options):
    """A whole file."""
    return field(1, 8) + field(7, graph(nodes, tensors, **options)) + field(8, field(2, opset))


def weights(seed=0):
    """Of ``classifier``, under names of torch."""
    draws = np.random.default_rng(seed)

    def random(*shape):
        return draws.normal(size=shape).astype("float32")

    return {
        "conv.weight": random(2, 1, 3, 3),
        "conv.bias": random(2),
        "fc.weight": random(3, 32),
        "fc.bias": random(3),
    }


def classifier(batch=None, given=None, *more, **options):
    """A convolution and a head for three classes of 4x4 images."""
    held = weights() if given is None else given
    nodes = [
        node("Conv", "x conv.weight conv.bias", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Flatten", "r", "f"),
        node("Gemm", "f fc.weight fc.bias", "y", transB=1),
        *more,
    ]
    tensors = [tensor(name, value) for name, value in held.items()]
    return model(nodes, tensors, **{"shape": (batch, 1, 4, 4), **options})
