# SPDX-License-Identifier: Apache-2.0
"""The engine of a Ray cluster: one task per job, an object reference per job that it needs.

Ray starts a task once the objects of its references exist, on a node with a free core or GPU, and
again on another node if the worker or the node is lost. Errors of a job are not retried. What all
jobs share is one object; rows come back as objects, and files travel through a ``RunStore``.
"""

import math
import pickle
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from d3fast.results.jobs import Job
from d3fast.runtime.checks import check_number
from d3fast.runtime.processes import torch_threads

if TYPE_CHECKING:
    from d3fast.results.pool import Shared

RETRIES = 3  # of a job whose worker was lost


def ray_engine(
    shared: "Shared",
    devices: Sequence[str] = ("auto",),
    *,
    threads: int = 1,
    progress: bool = False,
    address: str | None = None,
    gpus_per_job: float = 1.0,
) -> "RayEngine":
    """Return the engine of a Ray cluster.

    Args:
        shared: passed to ``Job.run``; it has to be picklable.
        devices: at most one job per device runs at once. ``("auto",)`` stands for all GPUs of the
            cluster, or all cores if it has none. Ray chooses the GPU, not the number in a name.
        threads: CPU threads of torch, and cores, of a job.
        progress: not used: jobs on other machines show no bars.
        address: of the cluster, as ``ray start`` prints it; ``None`` stands for ``RAY_ADDRESS``,
            or starts Ray on this machine.
        gpus_per_job: share of a GPU that a job needs; 0.5 lets two jobs share one.

    Raises:
        ValueError: Ray is not installed; devices of two kinds; shared objects that cannot be
            pickled.
        OSError: there is no cluster at the address.
    """
    check_number("gpus_per_job", gpus_per_job)
    kinds = {device.partition(":")[0] for device in devices}
    if len(kinds) != 1 or not kinds <= {"auto", "cpu", "cuda"}:
        raise ValueError(
            f"devices of --engine ray must be auto, or all cpu or all cuda, got {list(devices)}"
        )
    try:
        sent = pickle.dumps(shared.to(torch.device("cpu")))
    except Exception as error:  # the class of a user's model may raise anything
        reason = str(error).partition("\n")[0]
        raise ValueError(f"the model cannot be sent to other processes ({reason})") from None
    return RayEngine(sent, devices, threads, address, gpus_per_job, _import_ray())


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ValueError('--engine ray needs the package ray: pip install "d3fast[ray]"') from None
    return ray


class RayEngine:
    """Run jobs as tasks of Ray; arguments as in ``ray_engine``.

    Attributes:
        graph: jobs may be submitted before those they need have ended. Not with a list of devices,
            which limits how many run at once.
    """

    def __init__(
        self,
        sent: bytes,
        devices: Sequence[str],
        threads: int,
        address: str | None,
        gpus_per_job: float,
        ray: Any,
    ) -> None:
        self._ray, self._sent, self._threads = ray, sent, threads
        self._address, self._share = address, gpus_per_job
        self._kind = devices[0].partition(":")[0]
        self._most = math.inf if self._kind == "auto" else len(devices)
        self.graph = self._kind == "auto"
        self._refs: dict[str, Any] = {}
        self._running: dict[Any, str] = {}
        self._own = False  # whether this engine connected to the cluster

    @property
    def capacity(self) -> int:
        """Number of jobs that the cluster runs at once now; at least one."""
        have = self._ray.cluster_resources()
        per, name = (self._share, "GPU") if self._kind == "cuda" else (self._threads, "CPU")
        return max(1, int(min(self._most, have.get(name, 0) / per)))

    def submit(self, key: str, job: Job, needs: Sequence[str] = ()) -> None:
        """Submit a task that starts when the jobs it needs have ended."""
        needed = [self._refs[other] for other in needs]
        ref = self._task.remote(self._shared, pickle.dumps(job), self._kind, self._threads, *needed)
        self._refs[key], self._running[ref] = ref, key

    def take(self) -> tuple[str, Any]:
        """Wait for the next task to end and return its key and its result."""
        (ref,), _ = self._ray.wait(list(self._running), num_returns=1)
        key = self._running.pop(ref)
        try:
            return key, pickle.loads(self._ray.get(ref))
        except self._ray.exceptions.RayTaskError as error:
            self._cancel()
            cause = error.cause
            if isinstance(cause, ValueError):
                raise ValueError(str(cause)) from None
            raise RuntimeError(str(cause)) from None
        except self._ray.exceptions.RayError as error:
            self._cancel()
            reason = str(error).partition("\n")[0]
            raise OSError(
                f"job {key} was lost {RETRIES + 1} times with its worker: {reason}"
            ) from None

    def _cancel(self) -> None:
        """Cancel the tasks that have not ended; those that need the failed one cannot run."""
        for ref in self._running:
            self._ray.cancel(ref, force=True)
        self._running.clear()
        self._refs.clear()

    def __enter__(self) -> "RayEngine":
        if not self._ray.is_initialized():
            self._connect()
        if self._kind == "auto":
            self._kind = "cuda" if self._ray.cluster_resources().get("GPU") else "cpu"
        needs = {"num_gpus": self._share} if self._kind == "cuda" else {"num_cpus": self._threads}
        self._task = self._ray.remote(max_retries=RETRIES, retry_exceptions=False, **needs)(_run)
        self._shared = self._ray.put(self._sent)
        return self

    def _connect(self) -> None:
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level="error")
        except ConnectionError as error:
            reason = str(error).partition("\n")[0]
            raise OSError(f"no Ray cluster at {self._address or 'RAY_ADDRESS'}: {reason}") from None
        self._own = True

    def __exit__(self, *_: object) -> None:
        if not self._ray.is_initialized():
            return
        self._cancel()
        if self._own:
            self._ray.shutdown()  # ends the workers too


_LOADED: dict[tuple[int, str], Any] = {}  # what all jobs share, once per worker process


def _run(sent: bytes, job: bytes, device: str, threads: int, *_: bytes) -> bytes:
    """Run a pickled job in a worker; errors become plain ones, which survive pickling.

    Args:
        sent: what all jobs share, pickled.
        job: the job, pickled.
        device: kind of device; Ray shows a worker no GPU but its own.
        threads: CPU threads of torch: one, so that the bits are those of a local engine.
        _: rows of the jobs that this job needs; they say that these have ended.
    """
    where = (hash(sent), device)
    if where not in _LOADED:
        _LOADED.clear()
        _LOADED[where] = pickle.loads(sent).to(torch.device(device))
    try:
        with torch_threads(threads if device == "cpu" else torch.get_num_threads()):
            return pickle.dumps(pickle.loads(job).run(_LOADED[where], False))
    except (ValueError, OSError) as error:
        raise ValueError(str(error)) from None
    except Exception:
        raise RuntimeError(f"in a worker process:\n{traceback.format_exc()}") from None
