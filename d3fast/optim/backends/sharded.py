# SPDX-License-Identifier: Apache-2.0
"""The eager step of param groups with DTensors, whose norms are sums over the ranks of a mesh.

A step of tracked groups is, bucket by bucket, ``update``, an all-reduce of the sums of the bucket's
norm groups, and ``project``; the kernels (``ShardPlan``) or plain PyTorch (``TorchShard``,
``RuleShard``) take the parts. Every message ends with two counts of ranks: WAITING ranks could not
update, because they are to step other tensors than agreed or norms have to be measured; REFUSED
ranks raise. Where the host reads the counts, each rank so learns in the same all-reduce what comes
next, and none waits for one that went away::

    refused    raise
    waiting    compare what each rank is to step and raise where that differs; measure the norms;
               the waiting ranks update; add up the sums again
    none       correct norms that prove stale and add up the sums again; project

The first step begins with the comparison. In a later one, a rank that learns of another's error has
updated its own parts already.

Where all steps are those of a GPU's kernels, no host waits for the device. The kernels take no
projection where a count is not 0, and the host reads the counts when the next step begins. Then all
ranks raise, with the difference by name. A rank that waits does read the counts: where all ranks
wait, as in the first step and after a load, they go on as above.
"""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends import cuda, shard_plan
from d3fast.optim.backends.choose import choose_backend
from d3fast.optim.backends.dtensor import (
    gather,
)
from d3fast.optim.backends.group_plan import plan_key
from d3fast.optim.backends.plans import Plans
from d3fast.optim.backends.shard_agreement import (
    OTHER_REFUSED,
    Entry,
    Group,
    Part,
    compare,
    difference,
    entries_on,
    meshes_of,
)
from d3fast.optim.backends.shard_messages import (
    COUNTS,
    REFUSED,
    WAITING,
    Buckets,
    Key,
    LateCounts,
    Message,
    Piece,
    Sent,
    Shard,
    device_of,
    wait_all,
)
from d3fast.optim.backends.shard_plan import LocalPlan, ShardPlan
from d3fast.optim.backends.shard_rule import RuleShard
from d3fast.optim.backends.shard_torch import TorchShard, step_untracked
from d3fast.optim.buffers import check_step
from d3fast.optim.options import is_tracked
from d3fast.optim.rules import rule_of

State = MutableMapping[Tensor, dict[str, Any]]


class ShardedStepper:
    """Take the steps of the param groups with DTensors, and keep their plans.

    Args:
        captured: list that takes over what captured CUDA graphs address.
    """

    def __init__(self, captured: list[Any]) -> None:
        self._captured = captured
        self._untracked: Plans[LocalPlan] = Plans(captured)
        self._shards: dict[Key, Shard] = {}
        self._agreed: tuple[Any, ...] | None = None  # what every rank is to step
        self._meshes: list[Any] = []
        self._entries: list[list[Entry]] = []  # by mesh, of the step whose counts come late
        self._messages = [Message({}, [], torch.device("cpu"))]
        self._buckets = Buckets()
        self._late = LateCounts()
        self._on_device = False  # no host reads counts or overflows

    def drop_plans(self) -> None:
        """Let the next step build every plan again, and so measure every norm."""
        self._untracked.clear()
        self._drop_shards()

    def _drop_shards(self) -> None:
        if any(isinstance(s, ShardPlan) and s.captured for s in self._shards.values()):
            self._captured.append(self._messages)
        self._shards = {}

    def reads_overflow(self, parts: Sequence[Part]) -> bool:
        """Return whether the kernels read ``found_inf``; if not, the host has to skip the step.

        The same on every rank.

        Args:
            parts: the parts that have DTensors.
        """
        dampened = (rule_of(group).starts_undampened(group) for _, _, group in parts)
        agreed = self._agreed is not None or self._late.pending
        return agreed and self._on_device and not any(dampened)

    def step(
        self,
        groups: Sequence[Group],
        parts: Sequence[Part],
        state: State,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
    ) -> None:
        """Take one step, in place, on every rank of the parameters' meshes.

        Args:
            groups: all param groups of the optimizer.
            parts: the parts of them that have DTensors; a parameter without a gradient takes no
                part.
            state: the optimizer's state; references and buffers lie as their parameters do.
            grad_scale: 1-element tensor the gradients are divided by, in place (AMP).
            found_inf: 1-element tensor where ``reads_overflow``; where it is not 0 nothing moves.

        Raises:
            ValueError: the ranks were to step different tensors, or one refused the step; on every
                rank, on a GPU when the next step begins.
        """
        try:
            self._raise_late(self._late.take())
            self._step_tracked(groups, parts, state, grad_scale, found_inf)
        except Exception:  # on every rank
            self._agreed = None
            self.drop_plans()
            raise
        for index, number, group in parts:
            if not is_tracked(group):
                self._step_untracked(index, number, group, state, grad_scale, found_inf)

    def refuse(self, groups: Sequence[Group], parts: Sequence[Part]) -> None:
        """Tell the other ranks, which take the step, that this one raises."""
        if any(self._late.take()):
            self._agreed = None  # all ranks raise in this step, because of the one before
        else:
            self._refuse(groups, parts, [], late=self._on_device)

    def _refuse(
        self, groups: Sequence[Group], parts: Sequence[Part], sent: list[Sent], late: bool
    ) -> None:
        if self._agreed is None:
            self._agree(groups, parts, refused=True)
            return
        sent += [message.send(refused=True) for message in self._messages[len(sent) :]]
        totals = [message.wait() for message in sent]
        if late:  # this rank raises again, together with the others
            self._late.keep(totals[-1][-COUNTS:])
        self._agreed = None

    def _step_tracked(
        self,
        groups: Sequence[Group],
        parts: Sequence[Part],
        state: State,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        sent: list[Sent] = []
        waiting = True
        with self._refusal(groups, parts, sent, late=self._on_device):
            buckets = self._buckets.of([part for part in parts if is_tracked(part[2])])
            pieces = {key: group for bucket in buckets for key, _, group in bucket}
            outline = tuple((key, _outline(group)) for key, group in pieces.items())
            ready = self._check(parts, buckets, state) and outline == self._agreed
            if not ready:
                _refuse_capture(groups)
            elif self._on_device:
                self._pipeline(pieces, state, grad_scale, found_inf, sent)
                return
            for message in self._messages if self._agreed is not None else ():
                if ready:
                    message.update(grad_scale, None)
                sent.append(message.send(waiting=not ready))
        if sent:
            totals, counts = wait_all(sent)
            if self._on_device and counts[WAITING] < self._ranks():
                self._entries = [entries_on(mesh, groups, parts) for mesh in self._meshes]
                self._late.keep(totals[-1][-COUNTS:])
                return
            waiting = self._read(counts)
        if waiting:
            self._agree(groups, parts)
            self._agreed = outline
            if not ready:
                self._build(parts, buckets, state)
            totals = self._exchange([message.measured(ready) for message in self._messages])
        pairs = list(zip(self._messages, totals, strict=True))
        if ready:
            corrected = [message.correct(numbers) for message, numbers in pairs]
            waiting = waiting or any(corrected)
        else:
            with self._refusal(groups, parts, [], late=False):
                for message, numbers in pairs:
                    message.prepare(state, numbers)
                    message.update(grad_scale, found_inf)
        if waiting:
            totals = self._exchange()
        for message, numbers in zip(self._messages, totals, strict=True):
            message.project(pieces, state, numbers, on_device=False)

    def _pipeline(
        self,
        pieces: Mapping[Key, Group],
        state: State,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        sent: list[Sent],
    ) -> None:
        """Take the step of a GPU: a bucket is updated while the sums of the last one travel."""
        for i, message in enumerate(self._messages):
            message.update(grad_scale, found_inf)
            sent.append(message.send())
            if i:
                totals = sent[i - 1].wait()
                self._messages[i - 1].project(pieces, state, totals, on_device=True)
        totals = sent[-1].wait()
        self._messages[-1].project(pieces, state, totals, on_device=True)
        self._late.keep(totals[-COUNTS:])

    def _raise_late(self, counts: list[float]) -> None:
        """Raise what the counts of the step before say, on every rank.

        Raises:
            ValueError: that step was not one of all ranks.
        """
        if counts[REFUSED]:
            raise ValueError("a rank refused the step before this one; its own error says why")
        if counts[WAITING]:
            found = [gather(e, m) for e, m in zip(self._entries, self._meshes, strict=True)]
            differs = (ranks for ranks in found if len(set(map(tuple, ranks))) > 1)
            raise ValueError(f"in the step before this one, {difference(next(differs, found[0]))}")

    @contextmanager
    def _refusal(
        self, groups: Sequence[Group], parts: Sequence[Part], sent: list[Sent], late: bool
    ) -> Iterator[None]:
        """Tell the other ranks of an exception, in the messages that are not sent yet.

        Args:
            groups: all param groups.
            parts: those with DTensors.
            sent: messages that are.
            late: the others read of it when the next step begins.
        """
        try:
            yield
        except Exception:
            self._refuse(groups, parts, sent, late)
            raise

    def _check(
        self, parts: Sequence[Part], buckets: Sequence[Sequence[Piece]], state: State
    ) -> bool:
        """Check what has no valid plan; return whether all tracked pieces can update."""
        ready = True
        for key, number, group in (piece for bucket in buckets for piece in bucket):
            shard = self._shards.get(key)
            has_gradient = any(p.grad is not None for p in group["params"])
            holds = not has_gradient if shard is None else shard.ready(group, state)
            ready = ready and holds
            if not holds or isinstance(shard, TorchShard):
                _check_anew(number, group, state)
        for index, number, group in parts:
            plan = self._untracked.get(index)
            if not is_tracked(group) and (plan is None or not plan.matches(group, state)):
                self._untracked.drop(index)
                _check_anew(number, group, state)
        return ready

    def _step_untracked(
        self,
        index: int,
        number: int,
        group: Group,
        state: State,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        if all(p.grad is None for p in group["params"]):
            return
        plan = self._untracked.get(index)
        if plan is None and choose_backend(number, group) == "reference":
            step_untracked(group, state, grad_scale)
            return
        if plan is None:
            plan = self._untracked[index] = LocalPlan(group, state)
        plan.step(group, state, grad_scale, found_inf)

    def _build(
        self, parts: Sequence[Part], buckets: Sequence[Sequence[Piece]], state: State
    ) -> None:
        """Make shards and messages for what has just been agreed."""
        shards, messages = {}, []
        device = device_of([group for _, _, group in parts])
        for bucket in buckets:
            of_bucket = {
                key: _kind_of(number, group)(group, state)
                for key, number, group in bucket
                if any(p.grad is not None for p in group["params"])
            }
            shards.update(of_bucket)
            messages.append(Message(of_bucket, self._meshes, device))
        self._drop_shards()
        self._shards, self._messages = shards, messages
        untracked = [(n, g) for _, n, g in parts if not is_tracked(g)]
        self._on_device = (
            shard_plan.on_device(messages[0].sums)
            and all(isinstance(s, ShardPlan) and s.on_device for s in shards.values())
            and all(choose_backend(number, group) == "fused" for number, group in untracked)
        )

    def _exchange(self, numbers: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return the sums over all ranks, of the messages' own where ``numbers`` is ``None``.

        Raises:
            ValueError: another rank refused the step.
        """
        each = numbers or [message.sums for message in self._messages]
        sent = [m.send(own) for m, own in zip(self._messages, each, strict=True)]
        totals, counts = wait_all(sent)
        self._read(counts)
        return totals

    def _read(self, counts: Sequence[float]) -> bool:
        """Return whether a rank waits.

        Raises:
            ValueError: another rank refused the step.
        """
        if counts[REFUSED]:
            raise ValueError(OTHER_REFUSED)
        return counts[WAITING] > 0

    def _ranks(self) -> int:
        return sum(m.size() if m.get_coordinate() is not None else 1 for m in self._meshes)

    def _agree(self, groups: Sequence[Group], parts: Sequence[Part], refused: bool = False) -> None:
        """Compare what every rank is to step.

        Raises:
            ValueError: that differs, or another rank refused the step; on every rank.
        """
        self._meshes = meshes_of(groups)
        self._entries = [entries_on(mesh, groups, parts) for mesh in self._meshes]
        like = torch.zeros(0, dtype=torch.float64, device=device_of(groups))
        for mesh, entries in zip(self._meshes, self._entries, strict=True):
            compare(entries, mesh, like, refused)


def _check_anew(number: int, group: Group, state: State) -> None:
    check_step(number, group, [p for p in group["params"] if p.grad is not None], state)
    choose_backend(number, group)


def _kind_of(number: int, group: Group) -> type[Shard]:
    if choose_backend(number, group) == "fused":
        return ShardPlan
    return RuleShard if rule_of(group).counts_steps else TorchShard


def _outline(group: Group) -> tuple[Any, ...]:
    return plan_key(group), tuple([p.grad is not None for p in group["params"]])


def _refuse_capture(groups: Sequence[Group]) -> None:
    device = device_of(groups)
    if device.type == "cuda":
        cuda.refuse_capture(device)
