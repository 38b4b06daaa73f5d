# SPDX-License-Identifier: Apache-2.0
"""Step of sharded parameters on gloo processes, beside its parts: kernels and all-reduce.

Every rank holds a share of each tensor, cut along its first dimension. In each round all ranks take
in turn, each after a barrier and in another order: the sharded step; the same step in eight
buckets, whose all-reduces run while the next bucket is updated; the fused step of plain tensors as
large as the local parts; the all-reduce of a step's message alone; the sharded step in plain
PyTorch. The time of a round is that of the slowest rank, the CPU time that of all ranks: on a
machine that is shared, waiting for another rank is waiting for a core. Before that, a run of
sharded steps is compared with one of a single process.
"""

import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.multiprocessing.spawn import spawn

from benchmarks.speed.timing import quartiles
from benchmarks.studies.harness import save
from d3fast.optim import D3FusedSGD
from d3fast.optim.backends import shard_messages
from d3fast.results.format import fixed
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown

OPTIONS: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "track": "all"}
CONTENDERS = ("sharded", "buckets", "local", "all_reduce", "plain")
BUCKETS = 8


def _tensors(count: int, side: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(side, side, generator=generator) for _ in range(count)]


def _optimizer(
    weights: list[Tensor], seed: int, place: Callable[[Tensor], Tensor], **more: Any
) -> Any:
    """Return parameters away from their references, with gradients, and an optimizer over them."""
    params = [nn.Parameter(place(t + 1)) for t in weights]
    optimizer = D3FusedSGD(params, reference=[t.clone() for t in weights], **OPTIONS, **more)
    generator = torch.Generator().manual_seed(seed)
    for p, t in zip(params, weights, strict=True):
        p.grad = place(torch.randn(t.shape, generator=generator))
    return params, optimizer


def _difference(count: int, side: int, place: Callable[[Tensor], Tensor], steps: int) -> float:
    """Return the relative difference of sharded steps from those of one process."""
    weights, results = _tensors(count, side, 0), []
    for put in (place, lambda t: t):
        params, optimizer = _optimizer(weights, 1, put)
        for _ in range(steps):
            optimizer.step()
        full = (p.full_tensor() if put is place else p for p in params)
        results.append(torch.cat([p.detach().flatten() for p in full]).double())
    return float((results[0] - results[1]).norm() / results[1].norm())


def _contenders(
    count: int, side: int, world: int, place: Callable[[Tensor], Tensor]
) -> dict[str, Callable[[], object]]:
    weights = _tensors(count, side, 2)
    _, sharded = _optimizer(weights, 3, place)
    _, in_buckets = _optimizer(weights, 3, place)
    most = sum(t.numel() * t.element_size() for t in weights) / world / BUCKETS

    def buckets() -> None:
        usual = shard_messages.BUCKET_BYTES
        shard_messages.BUCKET_BYTES = {"cpu": most}
        in_buckets.step()
        shard_messages.BUCKET_BYTES = usual

    _, plain = _optimizer(weights, 3, place, backend="reference")
    _, local = _optimizer([t[: side // world].clone() for t in weights], 3, lambda t: t)
    message = torch.zeros(4 * count + 2, dtype=torch.float64)
    return dict(
        zip(
            CONTENDERS,
            (sharded.step, buckets, local.step, lambda: dist.all_reduce(message), plain.step),
            strict=True,
        )
    )


def _rank(rank: int, world: int, store: str, count: int, side: int, rounds: int, out: Any) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    torch.set_num_threads(1)
    init = f"file://{store}"
    wait = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=world, timeout=wait)
    mesh = init_device_mesh("cpu", (world,))

    def place(tensor: Tensor) -> Tensor:
        return distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        difference = _difference(count, side, place, 20)
        warned = [str(w.message) for w in caught if "slower" in str(w.message)]
    calls = _contenders(count, side, world, place)
    for call in calls.values():
        call()
    times, cpu_times = torch.zeros(2, rounds, len(calls), dtype=torch.float64)
    for turn in range(rounds):
        for i in range(len(calls)):
            at = (i + turn) % len(calls)
            dist.barrier()
            start, cpu_start = time.perf_counter(), time.process_time()
            calls[CONTENDERS[at]]()
            cpu_times[turn, at] = time.process_time() - cpu_start
            times[turn, at] = time.perf_counter() - start
    dist.all_reduce(times, op=dist.ReduceOp.MAX)
    dist.all_reduce(cpu_times)
    if rank == 0:
        out.put((times.tolist(), cpu_times.tolist(), difference, warned))
    dist.barrier()
    dist.destroy_process_group()


def _summary(rounds: list[list[float]], prefix: str) -> dict[str, Any]:
    """Return the median milliseconds of each call, and quartiles of ratios within a round."""
    values = dict(zip(CONTENDERS, zip(*rounds, strict=True), strict=True))
    sharded, buckets, local, message, plain = (values[name] for name in CONTENDERS)
    ratios = {
        "to_parts": [s / (t + m) for s, t, m in zip(sharded, local, message, strict=True)],
        "to_bar": [s / (2 * t + m) for s, t, m in zip(sharded, local, message, strict=True)],
        "plain_to_sharded": [p / s for p, s in zip(plain, sharded, strict=True)],
        "buckets_to_sharded": [b / s for b, s in zip(buckets, sharded, strict=True)],
    }
    return {
        **{f"{prefix}{name}_ms": 1e3 * statistics.median(v) for name, v in values.items()},
        **{f"{prefix}{name}": quartiles(v) for name, v in ratios.items()},
    }


def measure(world: int, count: int, side: int, rounds: int) -> dict[str, Any]:
    """Return the row of a run of ``world`` processes on ``count`` square tensors."""
    out = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world, f"{folder}/store", count, side, rounds, out)
        spawn(_rank, arguments, nprocs=world)
        times, cpu_times, difference, warned = out.get()
    return {
        "kind": "shards",
        "ranks": world,
        "tensors": count,
        "weights": count * side * side,
        **_summary(times, ""),
        **_summary(cpu_times, "cpu_"),
        "difference": difference,
        "warnings": warned,
        "load": os.getloadavg(),
    }


def shards_table(results: Results) -> str:
    """Return CPU milliseconds of all ranks, ratios by CPU and wall-clock time, and the load."""
    headings = ["tensors", *(name.replace("_", "-") for name in CONTENDERS)]
    headings += ["of the bar, CPU", "of the bar, clock", "plain / sharded"]
    headings += ["buckets / sharded, CPU", "clock", "load"]
    ratios = ["cpu_to_bar", "to_bar", "cpu_plain_to_sharded"]
    ratios += ["cpu_buckets_to_sharded", "buckets_to_sharded"]
    lines = [
        [
            str(row["tensors"]),
            *(fixed(row[f"cpu_{name}_ms"], 1) for name in CONTENDERS),
            *(_spread(row[name]) for name in ratios),
            fixed(row["load"][0], 0),
        ]
        for row in results.rows
    ]
    return to_markdown(text_table(headings, lines))


def _spread(ratios: tuple[float, float, float]) -> str:
    low, middle, high = (fixed(ratio, 2) for ratio in ratios)
    return f"{middle} ({low}–{high})"


def shards(
    world: Annotated[int, typer.Option(help="Processes.")] = 2,
    rounds: Annotated[int, typer.Option(help="Rounds of every run.")] = 60,
    runs: Annotated[int, typer.Option(help="Runs, each in new processes.")] = 3,
    output: Annotated[Path | None, typer.Option(help="Another result file.")] = None,
) -> None:
    """Measure 4 million weights in 16 and in 64 tensors, and write ``shards-cpu.json``."""
    sizes = ((16, 512), (64, 256))
    rows = [measure(world, count, side, rounds) for _ in range(runs) for count, side in sizes]
    settings = {
        **OPTIONS,
        "constraint": "norm_sphere",
        "dtype": "float32",
        "threads": 1,
        "cores": os.cpu_count(),
        "bar": "sharded <= 2 local + all_reduce, to_bar <= 1; quartiles over rounds",
        "torch": torch.__version__,
    }
    changed = "".join(
        f" --{name} {value}"
        for name, value, default in (("world", world, 2), ("rounds", rounds, 60), ("runs", runs, 3))
        if value != default
    )
    save("shards-cpu", f"shards{changed}", settings, rows, output)
