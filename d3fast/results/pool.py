# SPDX-License-Identifier: Apache-2.0
"""The local engines: jobs in this process, or in one process per device.

What all jobs share (a model and its data, a run directory) travels to each process once. The
processes are spawned, because torch's thread pools do not survive a fork. They ignore Ctrl-C; the
parent process receives it and ends them.
"""

import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.synchronize import Lock
from typing import Any, Protocol

import torch

from d3fast.results.engine import Engine
from d3fast.results.jobs import Job
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.processes import (
    end_with_parent,
    ignore_interrupts,
    interrupts_blocked,
    torch_threads,
)


class Shared(Protocol):
    """What all jobs of an engine share; it can be pickled if there are several devices."""

    def to(self, device: torch.device, /) -> "Shared":
        """Return a copy on a device."""


def local_engine(
    shared: Shared, devices: Sequence[str] = ("cpu",), *, threads: int = 1, progress: bool = False
) -> Engine:
    """Return the engine of this machine: one worker per device.

    Args:
        shared: passed to ``Job.run``.
        devices: one name per worker; a name may be repeated. One device needs no other process.
        threads: CPU threads of torch in each worker.
        progress: jobs that run in this process show progress bars.

    Raises:
        ValueError: no devices, or one that this machine does not have; shared objects that cannot
            be pickled.
    """
    if not devices:
        raise ValueError("devices must name at least one device, got none")
    resolved = [resolve_device(device) for device in devices]
    if len(resolved) == 1:
        return InlineEngine(shared, resolved[0], threads, progress)
    return ProcessEngine(shared, resolved, threads)


class InlineEngine:
    """Run jobs in this process, one after the other; arguments as in ``local_engine``."""

    capacity = 1
    graph = False

    def __init__(
        self, shared: Shared, device: torch.device, threads: int = 1, progress: bool = False
    ) -> None:
        self._shared, self._progress = shared.to(device), progress
        self._threads = threads if device.type == "cpu" else torch.get_num_threads()
        self._queue: deque[tuple[str, Job]] = deque()

    def submit(self, key: str, job: Job, needs: Sequence[str] = ()) -> None:
        """Queue a job."""
        self._queue.append((key, job))

    def take(self) -> tuple[str, Any]:
        """Run the next job and return its key and result."""
        key, job = self._queue.popleft()
        with torch_threads(self._threads):
            return key, job.run(self._shared, self._progress)

    def __enter__(self) -> "InlineEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.clear()


class _Context(SpawnContext):
    """Spawns processes and remembers them, so that they can be ended before their job is."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]
        process = SpawnProcess(*args, **kwargs)
        self.started.append(process)
        return process


class ProcessEngine:
    """Run jobs in one process per device; arguments as in ``local_engine``."""

    graph = False

    def __init__(self, shared: Shared, devices: Sequence[torch.device], threads: int = 1) -> None:
        self.capacity = len(devices)
        self._context = _Context()
        self._reader, self._writer = self._context.Pipe(duplex=False)
        arguments = (self._reader, self._context.Lock(), threads)
        self._pool = ProcessPoolExecutor(len(devices), self._context, _prepare, arguments)
        self._running: dict[Future[bytes], str] = {}
        sent = _pickled(shared)
        # A thread, because a process reads only after it has imported torch.
        self._sender = threading.Thread(
            target=_send,
            args=(self._writer, [(str(device), sent) for device in devices]),
            daemon=True,
        )

    def submit(self, key: str, job: Job, needs: Sequence[str] = ()) -> None:
        """Start a job in a process, or queue it."""
        # Pickled here: multiprocessing's own pickler leaves tensors in shared memory.
        sent = pickle.dumps(job)
        try:
            with interrupts_blocked():
                self._running[self._pool.submit(_run, sent)] = key
        except BrokenProcessPool:
            raise self._lost_worker() from None

    def take(self) -> tuple[str, Any]:
        """Wait for the next job to end and return its key and result."""
        future = next(iter(wait(self._running, return_when=FIRST_COMPLETED).done))
        key = self._running.pop(future)
        try:
            return key, pickle.loads(future.result())
        except BrokenProcessPool:
            raise self._lost_worker() from None

    def _lost_worker(self) -> OSError:
        """Return the error for a worker that was ended from outside."""
        self._pool.shutdown()
        codes = [process.exitcode for process in self._context.started]
        # The pool terminates the other workers.
        own = [code for code in codes if code not in (None, 0, -signal.SIGTERM)]
        code = next(iter(own), -signal.SIGTERM)
        return OSError(
            f"a worker process ended (exit code {code:d}), out of memory perhaps; use fewer devices"
        )

    def __enter__(self) -> "ProcessEngine":
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._context.started:
            process.terminate()
        self._pool.shutdown(cancel_futures=True)
        for process in self._context.started:
            process.join()
        self._reader.close()  # ends the sender where a worker never read
        self._sender.join()
        self._writer.close()


def _pickled(shared: Shared) -> bytes:
    try:
        return pickle.dumps(shared.to(torch.device("cpu")))
    except Exception as error:  # the class of a user's model may raise anything
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the model cannot be sent to other processes ({reason}); use one device"
        ) from None


def _send(writer: Connection, payloads: Sequence[tuple[str, bytes]]) -> None:
    with suppress(OSError):
        for payload in payloads:
            writer.send(payload)


class _Worker:
    """State of a worker process: its device, and the shared objects once they are needed."""

    device: torch.device
    sent: bytes
    shared: Shared | None = None

    def load(self) -> Shared:
        """Return the shared objects on the device of this process."""
        if self.shared is None:
            try:
                shared = pickle.loads(self.sent)
            except Exception as error:  # the class of a user's model may raise anything
                raise ValueError(
                    f"the model cannot be restored in another process ({error}); use one device"
                ) from None
            self.shared, self.sent = shared.to(self.device), b""
        return self.shared


_WORKER = _Worker()  # one per process; a pool's function has no other way to its state


def _prepare(reader: Connection, lock: Lock, threads: int) -> None:
    """Initialize a worker process."""
    ignore_interrupts()
    torch.set_num_threads(threads)
    end_with_parent()
    with lock:
        device, _WORKER.sent = reader.recv()
    _WORKER.device = torch.device(device)


def _run(sent: bytes) -> bytes:
    """Run a pickled job; errors become plain ones, because others may not survive pickling."""
    try:
        return pickle.dumps(pickle.loads(sent).run(_WORKER.load(), False))
    except (ValueError, OSError) as error:
        raise ValueError(str(error)) from None
    except Exception:
        raise RuntimeError(f"in a worker process:\n{traceback.format_exc()}") from None
