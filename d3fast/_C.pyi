# Types of the extension built from csrc. Addresses cross as integers.
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from torch import Tensor

class Center:
    none: Center
    origin: Center
    reference: Center

class Phase:
    whole: Phase
    update: Phase
    correct: Phase
    project: Phase

class Scalar:
    @overload
    def __init__(self, value: float) -> None: ...
    @overload
    def __init__(self, *, device: int, is_double: bool) -> None: ...
    @property
    def value(self) -> float: ...
    @property
    def device(self) -> int: ...
    @property
    def is_double(self) -> bool: ...

class StepOptions:
    lr: Scalar
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool
    adamw: bool
    beta1: float
    beta2: float
    eps: float
    decoupled_push: bool
    distance_weight: float
    p: int
    center: Center
    lower: Scalar
    upper: Scalar
    relative: bool
    def __init__(self, **fields: Any) -> None: ...
    @property
    def needs_verification(self) -> bool: ...

class DTypeNames:
    weight: str
    momentum: str
    reference: str
    def __init__(self, **fields: str) -> None: ...

class Columns:
    theta: list[int]
    numel: list[int]
    compensation: list[int]
    reference: list[int]
    momentum: list[int]
    variance: list[int]
    steps: list[int]
    distance: list[int]
    whole: list[int]
    counts: list[bool]
    def __init__(self, **fields: Sequence[int]) -> None: ...

class Plan:
    def step(
        self,
        *,
        grads: Sequence[int],
        first_step: Sequence[bool] = ...,
        verify: bool,
        options: StepOptions,
        grad_scale: float | Scalar = ...,
        found_inf: float | Scalar = ...,
        executor: int,
        phase: Phase = ...,
        sums: int = ...,
        totals: int = ...,
        held: int = ...,
    ) -> bool: ...

class CpuPlan(Plan):
    def __init__(
        self,
        *,
        dtypes: DTypeNames,
        columns: Columns,
        reference_norms: Sequence[float],
        joint_norm: bool,
    ) -> None: ...

class CudaPlan(Plan):  # only where built with CUDA
    def __init__(self, *, dtypes: DTypeNames, columns: Columns, joint_norm: bool) -> None: ...
    @property
    def memory_bytes(self) -> int: ...
    def attach(
        self, *, device: int, stream: int, memory: int, reference_norms: int, lag: int = ...
    ) -> None: ...

def cuda_obstacle(*, device: int, dtypes: DTypeNames) -> str: ...  # only where built with CUDA

class TensorGuard:
    def __init__(
        self,
        *,
        params: Sequence[Tensor],
        state: Mapping[Tensor, dict[str, Any]],
        columns: Sequence[str],
        exchange: object,
    ) -> None: ...
    def matches(self, params: Sequence[Tensor], state: Mapping[Tensor, dict[str, Any]]) -> bool: ...
    def record_versions(self) -> None: ...
    @property
    def readable(self) -> bool: ...
    @property
    def gradients(self) -> list[int]: ...
    @property
    def edited(self) -> bool: ...
    @property
    def versions(self) -> list[int]: ...

def step_groups(
    *,
    groups: Sequence[tuple[TensorGuard, Plan, Sequence[Tensor], StepOptions, int]],
    state: Mapping[Tensor, dict[str, Any]],
    increment_versions: Callable[[Sequence[Tensor]], None],
) -> bool: ...
def build_info() -> dict[str, object]: ...
def partition(
    numel: Sequence[int], joint_norm: bool, chunk_length: int
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int, int]]]: ...
