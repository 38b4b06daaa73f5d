# SPDX-License-Identifier: Apache-2.0
"""Estimated memory, traffic and time of a D3 step on decoders of 1B to 70B parameters.

Parameters are sharded by FSDP2 along their first dimension over 1 to 512 GPUs; the numbers are
those of the rank with the most elements:

    kernel    bytes / (efficiency * bandwidth) + all-reduce
    plain     max(bytes asked / (efficiency * bandwidth), launches * seconds each) + all-reduce
    all-reduce  2 ceil(log2 GPUs) * latency + 2 (GPUs - 1)/GPUs * bytes / link

``kernel`` is the fused step on the local parts. ``plain`` is the plain-PyTorch step that DTensors
take where there is no kernel, such as for p = 3, counted operation by operation
(``benchmarks.studies.counting``). Every number is counted or measured in this repository, a
data-sheet figure or an assumption; ``settings`` says which.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.shapes import ParameterList, Shape, llama_1b, llama_8b, llama_70b
from benchmarks.speed.contenders import OURS
from benchmarks.studies.counting import Counts, count
from benchmarks.studies.harness import RESULTS, save
from d3fast.results.store import Results, read_results

MEASURED = "cpu-2core-2026-11-25"
MODELS = (llama_1b, llama_8b, llama_70b)
GPUS = tuple(2**i for i in range(10))
TRACKED = ("head", "MLP", "all linear")
GPU_PIECE = 1 << 24  # elements that the sums of a step take at a time on a GPU


@dataclass(frozen=True)
class Precision:
    """Bytes per element of the tensors of a step; gradients have the dtype of the weights."""

    name: str
    dtype: torch.dtype
    weight: int
    momentum: int
    reference: int
    compensation: int

    def state(self, tracked: bool) -> dict[str, int]:
        """Return the bytes kept per parameter.

        Example:
            >>> [sum(p.state(t).values()) for p in PRECISIONS for t in (True, False)]
            [16, 12, 10, 6]
        """
        return {
            "parameters": self.weight,
            "gradients": self.weight,
            "momentum": self.momentum,
            "reference": self.reference * tracked,
            "compensation": self.compensation * tracked,
        }

    def sweep(self, tracked: bool) -> int:
        """Return the bytes of one pass: all read; weight, momentum and compensation written.

        Example:
            >>> [p.sweep(t) for p in PRECISIONS for t in (True, False)]
            [24, 20, 16, 10]
        """
        written = self.weight + self.momentum + self.compensation * tracked
        return sum(self.state(tracked).values()) + written

    @property
    def projection(self) -> int:
        """Bytes of a second pass from memory that rescales weights and compensation."""
        return 2 * (self.weight + self.compensation)


PRECISIONS = (
    Precision("fp32", torch.float32, 4, 4, 4, 0),
    Precision("bf16", torch.bfloat16, 2, 2, 2, 2),
)


@dataclass(frozen=True)
class Device:
    """Data-sheet figures of a GPU and its links.

    Attributes:
        name: name of the GPU.
        memory: bytes.
        bandwidth: memory bandwidth, bytes per second.
        cache: bytes of L2.
        link: bytes per second and direction to GPUs of the same node.
        port: bytes per second and direction of its own port to other nodes.
        node: GPUs in a node.
    """

    name: str
    memory: float
    bandwidth: float
    cache: float
    link: float = 450e9
    port: float = 50e9
    node: int = 8


DEVICES = (Device("H100 SXM", 80e9, 3.35e12, 50e6), Device("H200 SXM", 141e9, 4.8e12, 50e6))


@dataclass(frozen=True)
class Assumed:
    """Assumed constants, not measured in this repository.

    Attributes:
        efficiency: attained share of the data-sheet memory bandwidth.
        latency: seconds per hop of an all-reduce.
        launch: seconds per kernel launch.
    """

    efficiency: float = 1.0
    latency: float = 5e-6
    launch: float = 5e-6


def tracked_names(model: ParameterList, what: str) -> set[str]:
    """Return the names of the tracked weights: ``"head"``, ``"MLP"`` or ``"all linear"``."""
    if what == "head":
        return {model.head}
    part = ".mlp." if what == "MLP" else "_proj."
    names = {name for name in model.shapes if part in name}
    return names if what == "MLP" else names | {model.head}


def local(shape: Shape, gpus: int) -> int:
    """Return the elements of a tensor on the fullest rank: FSDP2 shards the first dimension.

    Example:
        >>> local((10, 3), 1), local((10, 3), 4), local((2, 3), 512)
        (30, 9, 3)
    """
    return math.ceil(shape[0] / gpus) * math.prod(shape[1:])


def state_bytes(
    model: ParameterList, tracked: set[str], precision: Precision, gpus: int
) -> dict[str, int]:
    """Return the bytes on the fullest rank between steps, gradients included."""
    total = dict.fromkeys(precision.state(True), 0)
    for name, shape in model.shapes.items():
        for part, size in precision.state(name in tracked).items():
            total[part] += size * local(shape, gpus)
    return total


def kernel_bytes(
    model: ParameterList, tracked: set[str], precision: Precision, gpus: int, cache: float
) -> int:
    """Return the bytes through memory of a fused step on the norm sphere.

    On one GPU the projection reads from memory if the arrays of a tensor do not fit into the cache.
    On several it waits for the other ranks while the next bucket is updated, and reads from memory
    if those of all tensors do not fit.
    """
    arrays = sum(precision.state(True).values())
    everything = sum(local(shape, gpus) for shape in model.shapes.values()) * arrays
    total = 0
    for name, shape in model.shapes.items():
        n, ours = local(shape, gpus), name in tracked
        total += n * precision.sweep(ours)
        if ours and (everything if gpus > 1 else n * arrays) > cache:
            total += n * precision.projection
    return total


def added(model: ParameterList, tracked: set[str], precision: Precision) -> float:
    """Return the share of bytes that the fused step adds to SGD with momentum on one GPU."""
    ours, plain = (kernel_bytes(model, names, precision, 1, 0.0) for names in (tracked, set()))
    return ours / plain - 1


def plain_step(
    model: ParameterList, tracked: set[str], counts: Mapping[bool, Counts], gpus: int
) -> dict[str, float]:
    """Return bytes accessed, launches and bytes of temporaries of the plain-PyTorch step."""
    asked = held = passing = 0.0
    launches = sum(c.per_step for c in counts.values())
    for name, shape in model.shapes.items():
        n, c = local(shape, gpus), counts[name in tracked]
        asked += n * c.asked
        held += n * c.held
        passing = max(passing, n * c.passing)
        launches += c.per_tensor + c.per_piece * (math.ceil(n / GPU_PIECE) - 1)
    return {"asked": asked, "launches": launches, "passing": held + passing}


def message_bytes(tracked: set[str]) -> int:
    """Return the bytes of the all-reduce of a step by the kernels (docs/distributed.md)."""
    return 32 * len(tracked) + 16


def link(gpus: int, device: Device) -> float:
    """Return the bandwidth of the slowest link of a ring, bytes per second and direction."""
    return device.link if gpus <= device.node else device.port


def all_reduce_seconds(size: int, gpus: int, device: Device, assumed: Assumed) -> float:
    """Return the seconds of an all-reduce over ``gpus`` GPUs; 0 for one."""
    if gpus == 1:
        return 0.0
    hops = 2 * math.ceil(math.log2(gpus))
    return hops * assumed.latency + 2 * (gpus - 1) / gpus * size / link(gpus, device)


def fsdp_bytes(model: ParameterList, precision: Precision, gpus: int) -> int:
    """Return the bytes FSDP2 moves to a rank per step: two gathers of weights, one of gradients."""
    return 3 * precision.weight * model.numel * (gpus - 1) // gpus


def rows_of(
    model: ParameterList,
    what: str,
    precision: Precision,
    counts: Mapping[bool, Counts],
    assumed: Assumed,
) -> Iterator[dict[str, Any]]:
    """Yield one row per number of GPUs and device."""
    tracked = tracked_names(model, what)
    for gpus in GPUS:
        state = state_bytes(model, tracked, precision, gpus)
        plain = plain_step(model, tracked, counts, gpus)
        for device in DEVICES:
            reach = assumed.efficiency * device.bandwidth
            moved = kernel_bytes(model, tracked, precision, gpus, device.cache)
            all_reduce = all_reduce_seconds(message_bytes(tracked), gpus, device, assumed)
            plain_seconds = max(plain["asked"] / reach, plain["launches"] * assumed.launch)
            yield {
                "kind": "step",
                "model": model.name,
                "tracked": what,
                "precision": precision.name,
                "gpus": gpus,
                "device": device.name,
                **state,
                "state": sum(state.values()),
                "fits": sum(state.values()) < device.memory,
                "kernel_bytes": moved,
                "kernel_ms": 1e3 * moved / reach,
                "plain_bytes": plain["asked"],
                "plain_launches": plain["launches"],
                "plain_passing": plain["passing"],
                "plain_ms": 1e3 * plain_seconds,
                "message_bytes": message_bytes(tracked),
                "all_reduce_ms": 1e3 * all_reduce,
                "fsdp_bytes": fsdp_bytes(model, precision, gpus),
            }


def model_rows() -> Iterator[dict[str, Any]]:
    """Yield the tracked parameters of each model and track option."""
    for make in MODELS:
        model = make()
        for what in TRACKED:
            tracked = tracked_names(model, what)
            yield {
                "kind": "model",
                "model": model.name,
                "tracked": what,
                "parameters": model.numel,
                "tensors": len(model.shapes),
                "tracked_parameters": sum(math.prod(model.shapes[name]) for name in tracked),
                "tracked_tensors": len(tracked),
                "message_bytes": message_bytes(tracked),
                **{f"added_{p.name}": added(model, tracked, p) for p in PRECISIONS},
            }


def check_rows(measured: Results) -> Iterator[dict[str, Any]]:
    """Yield predicted and measured times over the floor of steps on a CPU, all tensors tracked."""
    fp32 = PRECISIONS[0]
    second = {
        "free": 0,
        "norm_sphere": fp32.projection,
        "distance_ball": fp32.projection + fp32.reference,
    }
    for row in measured.rows:
        name = str(row.get("contender", "")).removeprefix(f"{OURS} ")
        busy = str(row.get("workload", "")).endswith((", head", " busy", "60x36k"))
        if row["kind"] == "step" and row["skipped"] is None and name in second and not busy:
            sweep = fp32.sweep(True)
            yield {
                "kind": "check",
                "workload": row["workload"],
                "step": name,
                "predicted": (sweep + second[name]) / sweep,
                "measured": row["to_floor"],
            }


def all_rows(assumed: Assumed) -> list[dict[str, Any]]:
    """Return all rows."""
    rows = [*check_rows(read_results(RESULTS / f"{MEASURED}.json")), *model_rows()]
    for precision in PRECISIONS:
        counts = {tracked: count(precision.dtype, tracked) for tracked in (True, False)}
        for tracked, counted in counts.items():
            rows.append(
                {
                    "kind": "bytes",
                    "precision": precision.name,
                    "tracked": tracked,
                    **precision.state(tracked),
                    "state": sum(precision.state(tracked).values()),
                    "sweep": precision.sweep(tracked),
                    "projection": precision.projection if tracked else 0,
                    **asdict(counted),
                }
            )
        for make in MODELS:
            for what in TRACKED:
                rows += rows_of(make(), what, precision, counts, assumed)
    return rows


def settings(assumed: Assumed) -> dict[str, Any]:
    """Return the source of every constant."""
    return {
        "measured": {"file": f"{MEASURED}.json", "what": "time over floor, rows of kind check"},
        "counted": "rows of kind bytes: asked, held, passing, per_tensor, per_piece, per_step",
        "data_sheets": [asdict(device) for device in DEVICES],
        "assumed": asdict(assumed),
        "step": "momentum, norm_sphere, scope tensor, p = 2",
    }


def scaling(
    efficiency: Annotated[float, typer.Option()] = Assumed.efficiency,
    latency: Annotated[float, typer.Option()] = Assumed.latency,
    launch: Annotated[float, typer.Option()] = Assumed.launch,
    output: Annotated[Path | None, typer.Option(help="Another result file.")] = None,
) -> None:
    """Compute everything and write ``scaling.json``."""
    assumed = Assumed(efficiency, latency, launch)
    changed = "".join(
        f" --{o.name} {getattr(assumed, o.name):g}"
        for o in fields(Assumed)
        if getattr(assumed, o.name) != o.default
    )
    save("scaling", f"scaling{changed}", settings(assumed), all_rows(assumed), output)
