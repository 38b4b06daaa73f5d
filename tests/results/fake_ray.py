"""The few calls of Ray that the engine makes, in one process; workers can be lost."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar


class RayError(Exception):
    """As ``ray.exceptions.RayError``."""


class RayTaskError(RayError):
    """As ``ray.exceptions.RayTaskError``."""

    def __init__(self, cause):
        super().__init__(f"ray::_run()\n{cause}")
        self.cause = cause


@dataclass(eq=False)
class Ref:
    """A task that runs when it is waited for, or a value."""

    call: Any = None
    arguments: tuple = ()
    retries: int = 0
    value: Any = None
    error: Exception | None = None
    done: bool = False


@dataclass
class FakeRay:
    """A cluster of ``cores`` cores, which loses the workers of its first ``lost`` attempts."""

    cores: int = 2
    gpus: int = 0
    lost: int = 0
    submitted: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    connected: bool = False
    exceptions: ClassVar[Any] = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def init(self, **options):
        if options["address"] == "nowhere:1":
            raise ConnectionError("nobody answers\nat all")
        self.connected, self.options = True, options

    def is_initialized(self):
        return self.connected

    def shutdown(self):
        self.connected = False

    def cluster_resources(self):
        return {"CPU": float(self.cores)} | ({"GPU": float(self.gpus)} if self.gpus else {})

    def put(self, value):
        return Ref(value=value, done=True)

    def remote(self, **options):
        self.task_options = options

        def submit(call, *arguments):
            ref = Ref(call, arguments, options["max_retries"])
            self.submitted.append(ref)
            return ref

        return lambda call: SimpleNamespace(remote=lambda *given: submit(call, *given))

    def wait(self, refs, num_returns):
        self._run(refs[0])
        return [refs[0]], refs[1:]

    def get(self, ref):
        if ref.error is not None:
            raise ref.error
        return ref.value

    def cancel(self, ref, force):
        self.cancelled.append(ref)

    def _run(self, ref):
        if ref.done:
            return
        ref.done = True
        needs = [other for other in ref.arguments if isinstance(other, Ref)]
        for other in needs:
            self._run(other)
        failed = [other.error for other in needs if other.error is not None]
        if failed:
            ref.error = failed[0]
            return
        given = [other.value if isinstance(other, Ref) else other for other in ref.arguments]
        for attempt in range(ref.retries + 1):
            try:
                ref.value = ref.call(*given)
            except Exception as error:
                ref.error = RayTaskError(error)
                return
            if not self.lost:
                return
            self.lost -= 1  # the work was done, the answer is lost
            ref.value = None
            if attempt == ref.retries:
                ref.error = RayError("the worker died\nunexpectedly")
