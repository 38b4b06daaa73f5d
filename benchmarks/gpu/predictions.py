# SPDX-License-Identifier: Apache-2.0
"""What the stages should measure, written down before any of it was measured.

Times are for an H200 whose copy moves 4.3 TB/s: the floor of a workload is its least bytes at that
rate, 24 per parameter in fp32 and 16 in bf16. ``STATED`` are the ranges of a review of the compiled
kernels, by instruction counts, registers and cache sizes; it found that a hot loop which loads all
arrays before it computes gains ``GAIN``, so the low end of a range is divided by it. ``DERIVED``
follow from those by bytes, and name the rule. A figure outside of its range asks for a reason
before any change.
"""

from collections.abc import Mapping
from dataclasses import dataclass

GPU = "h200"
COPY = 4.3  # TB/s, bytes read and written

WORKLOADS = ("10x25M", "10x2.5M", "ResNet-18", "ViT-B/16", "10x2.5M, bf16")
VARIANTS = ("free", "norm_ball inside", "norm_sphere", "distance_ball")
_PARAMETERS = {"10x25M": 250e6, "10x2.5M": 25e6, "ResNet-18": 11.69e6, "ViT-B/16": 86.57e6}


@dataclass(frozen=True)
class Prediction:
    """A range that a measured number should lie in.

    Attributes:
        low: lower end.
        high: upper end.
        source: "stated", or the rule by which it was derived.
        gpu: the GPU it was made for, ``None`` where it holds on any.
    """

    low: float
    high: float
    source: str
    gpu: str | None = None


# ms per step in replays, free and on the sphere.
STATED: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "10x25M": ((1.47, 1.57), (1.80, 2.05)),
    "ResNet-18": ((0.077, 0.085), (0.090, 0.115)),
    "ViT-B/16": ((0.52, 0.55), (0.56, 0.70)),
    "10x2.5M, bf16": ((0.105, 0.125), (0.11, 0.14)),
}
GAIN = {"10x25M": 0.03, "ResNet-18": 0.10, "ViT-B/16": 0.10, "10x2.5M, bf16": 0.20}


def _steps() -> dict[str, Prediction]:
    found = {}
    free: tuple[float, ...]
    sphere: tuple[float, ...]
    for name in WORKLOADS:
        source = "stated, low end with the faster loop"
        if name in STATED:
            free, sphere = ((low / (1 + GAIN[name]), high) for low, high in STATED[name])
        else:  # 10x2.5M: a tenth of the bytes of 10x25M, tensors of 10 MB that fit in L2
            source = "derived: a tenth of 10x25M, its sphere at 24 to 31 bytes"
            free = tuple(x / 10 for x in (1.47 / 1.03, 1.57 * 1.1))
            sphere = (free[0], 0.205 * 1.1)
        extra = (1.0, 35 / 31)  # the reference is read again: 4 bytes more than the sphere's 31
        ranges = {
            "free": (free, source),
            "norm_ball inside": ((free[0], sphere[1]), "derived: free to sphere, nothing rescaled"),
            "norm_sphere": (sphere, source),
            "distance_ball": (
                (sphere[0] * extra[0], sphere[1] * extra[1]),
                "derived: the sphere and up to 4 bytes more",
            ),
        }
        for variant, ((low, high), why) in ranges.items():
            found[f"{name}, {variant}: replay"] = Prediction(low, high, why, GPU)
    return found


def _sgd() -> dict[str, Prediction]:
    """torch's fused SGD moves 20 bytes where a free step moves 24, 10 of 16 in bf16."""
    found = {}
    for name in WORKLOADS:
        half = name.endswith("bf16")
        count = _PARAMETERS[name.removesuffix(", bf16")]
        floor = count * (10 if half else 20) / (COPY * 1e12) * 1e3
        why = "derived: 20 bytes (bf16: 10) at 60 to 100 % of a copy"
        found[f"{name}, torch SGD: replay"] = Prediction(floor, floor / 0.6, why, GPU)
    return found


DERIVED: Mapping[str, Prediction] = {
    "copy": Prediction(4.0, 4.6, "stated: 4.3 TB/s", GPU),
    # Bytes do not depend on the rate of the memory.
    "1x250M, free: DRAM": Prediction(23.5, 25.2, "stated: 24 bytes, at most 5 % more"),
    "1x250M, norm_sphere: DRAM": Prediction(31.0, 33.6, "stated: 24 and 8 more, nothing in L2"),
    "10x25M, norm_sphere: DRAM": Prediction(28.0, 32.5, "stated: 29 to 31 bytes", GPU),
    "ResNet-18, norm_sphere: DRAM": Prediction(19.0, 27.0, "derived: 24; L2 may hold the end", GPU),
    "ViT-B/16, norm_sphere: DRAM": Prediction(23.0, 30.0, "derived: 24 to 30, by L2", GPU),
    "ViT-B/16, norm_sphere: L2 hits": Prediction(10.0, 40.0, "derived: 8 of 32 bytes and up", GPU),
    "1x25M, .data edit: step": Prediction(0.28, 0.60, "derived: two passes of 24 bytes", GPU),
    "ViT-B/16, scope=group: replay": Prediction(
        0.64, 0.85, "derived: 32 bytes, all sums before any projection", GPU
    ),
    "10x2.5M, misaligned gradients: ratio": Prediction(
        0.98, 1.35, "derived: alignment per array; 2.0 where it was all or nothing"
    ),
    "ResNet-18, free: host": Prediction(30.0, 110.0, "stated: 85 µs", GPU),
}

# Bytes of a step of shards at 80 to 100 % of a copy: 24 without a projection, 24 to 32 with one,
# whose weights lie a bucket of 64 MiB back. Between an update and its projection each bucket adds
# launches of about 3 µs: a copy of the sums, the all-reduce, the counts.
_BUCKETS = {"10x25M": 10, "10x2.5M": 2, "ViT-B/16": 6}
_OVERHEAD = 3e-3 * 6  # ms of a bucket, at most


def _shards() -> dict[str, Prediction]:
    found = {}
    for name, buckets in _BUCKETS.items():
        for variant, (least, most) in {"free": (24, 24), "norm_sphere": (24, 32)}.items():
            low, high = (_PARAMETERS[name] * b / (COPY * 1e12) * 1e3 for b in (least, most))
            why = f"derived: {least} to {most} bytes at 80 to 100 % of a copy, {buckets} buckets"
            end = high / 0.8 + buckets * _OVERHEAD
            found[f"{name} in shards, {variant}: replay"] = Prediction(low, end, why, GPU)
    return found


PREDICTIONS: Mapping[str, Prediction] = {**_steps(), **_sgd(), **_shards(), **DERIVED}


def predicted(name: str, machine: str) -> Prediction | None:
    """Return the prediction of a figure on a machine, ``None`` where there is none.

    Example:
        >>> predicted("1x250M, free: DRAM", "a100").high, predicted("copy", "a100")
        (25.2, None)
    """
    found = PREDICTIONS.get(name)
    return found if found is not None and found.gpu in (None, machine) else None
