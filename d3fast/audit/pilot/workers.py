# SPDX-License-Identifier: Apache-2.0
"""Tasks side by side: one process per device, or this process where there is one device.

A ``Crew`` is made of a tool, an object that every task needs (a model, its data), and of devices.
The tool travels to each process once; a task is a function of the module level, called with the
tool on the worker's device and an item. Results come back in the order of the items, whichever
worker made them.

The processes are spawned: torch's thread pools do not survive a fork. They do not hear Ctrl-C; the
process that began them does, and ends them.
"""

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from d3fast.runtime.devices import resolve_device
from d3fast.runtime.processes import end_with_parent


class Tool(Protocol):
    """What travels to the workers."""

    def to(self, device: torch.device) -> "Tool":
        """A copy on a device."""


# (tool, device, item) to a result; a function of the module level.
Task = Callable[[Any, torch.device, Any], Any]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many CPU threads inside a ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Crew:
    """Workers that share a tool; used in a ``with`` block.

    Args:
        tool: what every task needs.
        devices: one worker each; the same one may be named again.
        threads: of torch, per worker on a CPU.

    Raises:
        ValueError: no devices, or one that this machine does not have; a tool that cannot be sent
            to another process.
    """

    def __init__(self, tool: Tool, devices: Sequence[str], threads: int = 1) -> None:
        if not devices:
            raise ValueError("devices must name at least one device, got none")
        self._devices = [resolve_device(device) for device in devices]
        self._threads = threads
        self._tool = tool
        self._sent = _pickled(tool) if len(self._devices) > 1 else b""
        self._workers: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> "Crew":
        if len(self._devices) == 1:
            self._tool = self._tool.to(self._devices[0])
            return self
        context = multiprocessing.get_context("spawn")
        # Before the block: it unblocks the signal itself when it is first used.
        resource_tracker.ensure_running()
        try:
            with _interrupts_blocked():
                for device in self._devices:
                    ours, theirs = context.Pipe()
                    given = (theirs, str(device), self._threads)
                    begun = context.Process(target=_serve, args=given, daemon=True)
                    begun.start()
                    theirs.close()
                    self._workers.append((begun, ours))
            for process, pipe in self._workers:
                with _loss_of(process):
                    pipe.send_bytes(self._sent)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process, pipe in self._workers:
            process.terminate()
            pipe.close()
        for process, _pipe in self._workers:
            process.join()
        self._workers = []

    def run(
        self, task: Task, items: Sequence[Any], on_done: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """Results of a task for every item, in order.

        Args:
            task: what is done.
            items: what it is called with.
            on_done: called in this process after every item.

        Raises:
            ValueError, OSError: what a task raised; a tool that cannot be made anew in a worker;
                a worker that was ended from outside.
            RuntimeError: another error of a task in a worker, with its traceback.
        """
        if len(self._devices) > 1:
            return self._beside(task, items, on_done)
        results, device = [], self._devices[0]
        on_cpu = device.type == "cpu"
        with torch_threads(self._threads if on_cpu else torch.get_num_threads()):
            for item in items:
                results.append(task(self._tool, device, item))
                on_done()
        return results

    def _beside(self, task: Task, items: Sequence[Any], on_done: Callable[[], None]) -> list[Any]:
        processes = {pipe: process for process, pipe in self._workers}
        waiting, results = iter(enumerate(items)), dict[int, Any]()
        running: dict[Connection, int] = {}

        def begin(pipe: Connection) -> None:
            for place, item in waiting:
                with _loss_of(processes[pipe]):
                    pipe.send_bytes(pickle.dumps((task, item)))
                running[pipe] = place
                return

        for pipe in processes:
            begin(pipe)
        while running:
            ready = wait(list(running))
            for pipe in [pipe for pipe in running if pipe in ready]:
                with _loss_of(processes[pipe]):
                    answer = pickle.loads(pipe.recv_bytes())
                results[running.pop(pipe)] = _opened(*answer)
                on_done()
                begin(pipe)
        return [results[place] for place in range(len(items))]


def _pickled(tool: Tool) -> bytes:
    # Not torch's own way between processes, which leaves tensors in shared memory.
    try:
        return pickle.dumps(tool.to(torch.device("cpu")))
    except Exception as error:  # whatever a stranger's class raises
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the model cannot be sent to other processes ({reason}); use one device"
        ) from None


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes that are begun in here never hear Ctrl-C; this one does, afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _loss_of(process: BaseProcess) -> Iterator[None]:
    """Say so where the other end of a pipe is gone."""
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        process.join(1)
        raise OSError(
            f"a worker process ended (exit code {process.exitcode}), out of memory perhaps; "
            "use fewer devices"
        ) from None


def _opened(kind: str, value: Any) -> Any:
    """The result of a task, or its error."""
    if kind == "error":
        raise ValueError(value)
    if kind == "defect":
        raise RuntimeError(f"in a worker process:\n{value}")
    return value


def _serve(pipe: Connection, device: str, threads: int) -> None:
    """The life of a worker: take the tool, then tasks, until it is ended."""
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    end_with_parent()
    where, tool = torch.device(device), None
    sent = pipe.recv_bytes()
    while True:
        task, item = pickle.loads(pipe.recv_bytes())
        try:
            if tool is None:
                tool = _made_anew(sent).to(where)
            answer = ("result", task(tool, where, item))
        except (ValueError, OSError) as error:
            answer = ("error", str(error))
        except Exception:
            answer = ("defect", traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))


def _made_anew(sent: bytes) -> Tool:
    try:
        return pickle.loads(sent)
    except Exception as error:
        raise ValueError(
            f"the model cannot be made anew in another process ({error}); use one device"
        ) from None
