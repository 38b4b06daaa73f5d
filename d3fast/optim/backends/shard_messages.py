# SPDX-License-Identifier: Apache-2.0
"""The messages of a sharded step: buckets of tensors whose sums one all-reduce adds up.

While a message is under way the next bucket is updated. On a GPU the collective runs behind the
bucket's update on a stream of its own, and the projection waits for it there: no host waits. The
buckets follow from the whole tensors, so that every rank sends the same messages.

Every message ends with two counts of ranks: those that wait, because they cannot update yet, and
those that refused the step. On the CPU the host reads them at once. On a GPU the kernels read them,
and take no projection unless both are 0; the host reads them when the next step begins
(``LateCounts``), by which time the GPU has long written them.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends.dtensor import Started, all_reduce, local, mesh_of
from d3fast.optim.backends.shard_agreement import Group, Part
from d3fast.optim.backends.shard_plan import BEFORE, ShardPlan
from d3fast.optim.backends.shard_rule import RuleShard
from d3fast.optim.backends.shard_torch import TorchShard

Shard = ShardPlan | TorchShard | RuleShard
Key = tuple[int, int]  # number of a part over all groups, position of the bucket's first parameter
Piece = tuple[Key, int, Group]  # of a part: key, number of its group, the piece as a group

COUNTS = 2  # that end a message
WAITING, REFUSED = range(COUNTS)

# Bytes of weights that a rank has of a bucket, by device. At 24 bytes per fp32 weight and 4.3 TB/s,
# a GPU updates 64 MiB of weights in 94 us, longer than a small all-reduce within a node takes. On
# two CPU cores more messages only cost time (benchmarks/studies/shards.py).
BUCKET_BYTES: Mapping[str, float] = {"cpu": math.inf, "cuda": 64 * 2**20}


class Buckets:
    """Divides tracked parts into buckets of pieces, the same on every rank."""

    def __init__(self) -> None:
        self._divided: tuple[Any, ...] = ()
        self._cuts: list[list[tuple[int, int, int]]] = []

    def of(self, parts: Sequence[Part]) -> list[list[Piece]]:
        """Return the buckets of the tracked parts, at least one."""
        kinds = (local(p).device.type for _, _, group in parts for p in group["params"])
        most = BUCKET_BYTES.get(next(kinds, "cpu"), math.inf)
        if most == math.inf:
            return [[((index, 0), number, group) for index, number, group in parts]]
        divided = (most, *((g["scope"], *map(id, g["params"])) for _, _, g in parts))
        if divided != self._divided:
            self._divided, self._cuts = divided, cuts([group for _, _, group in parts], most)
        return [[_piece(parts[at], start, end) for at, start, end in c] for c in self._cuts]


def cuts(groups: Sequence[Group], most: float) -> list[list[tuple[int, int, int]]]:
    """Return for each bucket the group, first and last position of its pieces.

    Args:
        groups: the tracked parts.
        most: bytes of weights per rank at which a bucket ends. A piece is not smaller than a norm
            group, which with ``scope="group"`` is the part.

    Example:
        >>> ones = {"params": [torch.ones(4)] * 3, "scope": "tensor"}
        >>> cuts([ones, {**ones, "scope": "group"}], most=32)
        [[(0, 0, 2)], [(0, 2, 3), (1, 0, 3)]]
    """
    buckets: list[list[tuple[int, int, int]]] = [[]]
    filled = 0.0
    for at, group in enumerate(groups):
        start, count = 0, len(group["params"])
        for end, p in enumerate(group["params"], 1):
            filled += _bytes_per_rank(p)
            full = filled >= most and (group["scope"] != "group" or end == count)
            if full or end == count:
                buckets[-1].append((at, start, end))
                start = end
            if full:
                buckets.append([])
                filled = 0.0
    return buckets if buckets[-1] or len(buckets) == 1 else buckets[:-1]


def _bytes_per_rank(p: Any) -> float:
    size = float(p.numel() * p.element_size())
    if mesh_of(p) is None:
        return size
    cut = [n for n, at in zip(p.device_mesh.shape, p.placements, strict=True) if at.is_shard()]
    return size / math.prod(cut)


def _piece(part: Part, start: int, end: int) -> Piece:
    index, number, group = part
    names = group.get("param_names")
    named = {} if names is None else {"param_names": names[start:end]}
    return (index, start), number, {**group, "params": group["params"][start:end], **named}


class Message:
    """The sums of one bucket.

    Args:
        shards: of the bucket's pieces.
        meshes: of the optimizer's parameters; a message travels over each of them.
        device: where the ranks' backend can send from.

    Attributes:
        shards: as given.
        sums: this rank's, float64, the rows of all shards and the counts, which are 0.
    """

    def __init__(
        self, shards: Mapping[Key, Shard], meshes: Sequence[Any], device: torch.device
    ) -> None:
        self.shards = dict(shards)
        owners = [mesh_of(p) for s in shards.values() for p in s.rows for _ in range(s.columns)]
        self.sums = torch.zeros(len(owners) + COUNTS, dtype=torch.float64, device=device)
        self._meshes = list(meshes)
        counts = range(len(owners), len(owners) + COUNTS)
        self._places: list[Tensor | None] = []  # of a mesh's numbers in the message; None: all
        for mesh in meshes:
            at = [i for i, owner in enumerate(owners) if owner == mesh]
            is_all = len(at) == len(owners)
            self._places.append(None if is_all else torch.tensor([*at, *counts], device=device))

    def rows(self, numbers: Tensor) -> Iterator[tuple[Key, Shard, Tensor]]:
        """Yield the shards with their rows of a message, one row per norm group."""
        start = 0
        for key, shard in self.shards.items():
            end = start + len(shard.rows) * shard.columns
            yield key, shard, numbers[start:end].view(-1, shard.columns)
            start = end

    def update(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        """Take the steps of the bucket without their projections.

        Args:
            grad_scale: 1-element tensor the gradients are divided by, in place.
            found_inf: 1-element tensor that the kernels of a GPU read, else ``None``.
        """
        for _, shard, sums in self.rows(self.sums):
            if isinstance(shard, ShardPlan):
                shard.update(grad_scale, sums, found_inf)
            else:
                shard.update(grad_scale, sums)

    def measured(self, moved: bool) -> Tensor:
        """Return what ``prepare`` and ``correct`` need from all ranks, this rank's share.

        Args:
            moved: this rank has updated; it measured the norms before that.
        """
        numbers = torch.zeros_like(self.sums)
        pairs = zip(self.rows(numbers), self.rows(self.sums), strict=True)
        for (_, shard, rows), (_, _, sums) in pairs:
            if not isinstance(shard, TorchShard):
                shard.measure(rows)
                if moved:
                    rows[:, BEFORE] = sums[:, BEFORE]
        return numbers

    def prepare(self, state: Any, totals: Tensor) -> None:
        """Make the plans of the coming step from what all ranks have measured."""
        for _, shard, rows in self.rows(totals):
            shard.prepare(state, rows)

    def correct(self, totals: Tensor) -> bool:
        """Correct what was pushed with stale norms; return whether ``sums`` have changed."""
        pairs = zip(self.rows(totals), self.rows(self.sums), strict=True)
        corrected = [shard.correct(total, sums) for (_, shard, total), (_, _, sums) in pairs]
        return any(corrected)

    def send(
        self, numbers: Tensor | None = None, waiting: bool = False, refused: bool = False
    ) -> "Sent":
        """Begin to add up numbers over the ranks.

        Args:
            numbers: like ``sums``, which are sent where this is ``None``.
            waiting: this rank waits.
            refused: this rank refused the step.
        """
        totals = (self.sums if numbers is None else numbers).clone()
        for at, flag in ((WAITING, waiting), (REFUSED, refused)):
            if flag:
                totals[at - COUNTS] = 1.0
        return Sent(totals, self._meshes, self._places)

    def project(
        self, pieces: Mapping[Key, Group], state: Any, totals: Tensor, on_device: bool
    ) -> None:
        """Take the projections of the bucket, which ends its step.

        Args:
            pieces: the bucket's param groups.
            state: the optimizer's state.
            totals: the sums of all ranks.
            on_device: the kernels read the counts.
        """
        held = totals[-COUNTS:] if on_device else None
        for key, shard, rows in self.rows(totals):
            if isinstance(shard, ShardPlan):
                shard.project(pieces[key], state, rows, held)
            else:
                shard.project(pieces[key], state, rows)


class Sent:
    """A message under way.

    Attributes:
        totals: the sums over all ranks, the counts over all ranks of all meshes; valid after
            ``wait``.
    """

    def __init__(
        self, totals: Tensor, meshes: Sequence[Any], places: Sequence[Tensor | None]
    ) -> None:
        self.totals = totals
        self._meshes, self._places = meshes, places
        self._started: Started | None = None
        if len(meshes) == 1 and places[0] is None:
            self._started = Started(totals, meshes[0])

    def wait(self) -> Tensor:
        """Return the totals; on a GPU the current stream waits for them and not the host."""
        if self._started is not None:
            self._started.wait()
            return self.totals
        here, counts = self.totals[-COUNTS:].clone(), torch.zeros_like(self.totals[-COUNTS:])
        for mesh, places in zip(self._meshes, self._places, strict=True):
            self.totals[-COUNTS:] = here
            message = self.totals if places is None else self.totals[places]
            all_reduce(message, mesh)
            if places is not None:
                self.totals[places] = message
            counts += self.totals[-COUNTS:]
        if self._meshes:
            self.totals[-COUNTS:] = counts
        return self.totals


def wait_all(sent: Iterable[Sent]) -> tuple[list[Tensor], list[float]]:
    """Return the totals of some messages and the counts of the last one, which the host reads."""
    totals = [message.wait() for message in sent]
    return totals, totals[-1][-COUNTS:].tolist()


class LateCounts:
    """The counts of one step, which the host reads when the next one begins."""

    def __init__(self) -> None:
        self._kept: Tensor | None = None
        self._buffer: Tensor | None = None  # page-locked
        self._written: torch.cuda.Event | None = None

    def keep(self, counts: Tensor) -> None:
        """Keep counts; the copy to the host is enqueued behind what writes them.

        Nothing is kept of a step that a CUDA graph captures: no host code runs in a replay.
        """
        if not counts.is_cuda:
            self._kept = counts.clone()
            return
        if torch.cuda.is_current_stream_capturing():
            return
        if self._buffer is None or self._written is None:
            self._buffer = torch.empty(COUNTS, dtype=counts.dtype, pin_memory=True)
            self._written = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._buffer.copy_(counts, non_blocking=True)
        self._written.record(torch.cuda.current_stream(counts.device))
        self._kept = self._buffer

    @property
    def pending(self) -> bool:
        """True where counts were kept and not taken yet."""
        return self._kept is not None

    def take(self) -> list[float]:
        """Return what was kept, once; zeros where nothing was.

        The host waits until the GPU has reached the end of the step that the counts are of, which
        it has unless it is more than a whole training step behind.
        """
        if self._kept is None:
            return [0.0] * COUNTS
        if self._kept is self._buffer and self._written is not None:
            if torch.cuda.is_current_stream_capturing():
                return [0.0] * COUNTS
            self._written.synchronize()
        kept, self._kept = self._kept, None
        return kept.tolist()


def device_of(groups: Sequence[Group]) -> torch.device:
    """Return the device of the last DTensor's local part, the CPU where there is none."""
    devices = [local(p).device for g in groups for p in g["params"] if mesh_of(p) is not None]
    return devices[-1] if devices else torch.device("cpu")
