# Types of the extension built from csrc/bindings.cpp. Addresses cross as integers.
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

class StepOptions:
    def __init__(
        self,
        *,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        maximize: bool,
        distance_weight: float,
        p: int,
        center: int,
        lower: float,
        upper: float,
        relative: bool,
        grad_scale: float,
    ) -> None: ...

class Dtypes:
    def __init__(self, *, weight: str, momentum: str, reference: str) -> None: ...

class Columns:
    def __init__(
        self,
        *,
        theta: Sequence[int],
        numel: Sequence[int],
        compensation: Sequence[int],
        reference: Sequence[int],
        momentum: Sequence[int],
        distance: Sequence[int],
    ) -> None: ...

class CpuPlan:
    def __init__(
        self,
        *,
        dtypes: Dtypes,
        columns: Columns,
        reference_norms: Sequence[float],
        joint: bool,
    ) -> None: ...
    def step(
        self,
        grads: Sequence[int],
        fresh: Sequence[bool],
        verify: bool,
        threads: int,
        options: StepOptions,
    ) -> None: ...

class Watch:
    def __init__(
        self,
        *,
        params: Sequence[Tensor],
        state: Mapping[Tensor, dict[str, Any]],
        columns: Sequence[str],
        exchange: object,
    ) -> None: ...
    def look(
        self, params: Sequence[Tensor], state: Mapping[Tensor, dict[str, Any]]
    ) -> list[Tensor] | None: ...
    def settle(self) -> None: ...
    @property
    def addresses(self) -> list[int] | None: ...
    @property
    def edited(self) -> bool: ...
    @property
    def versions(self) -> list[int]: ...

def build_info() -> dict[str, object]: ...
def cut(
    numel: Sequence[int], joint: bool, chunk_length: int
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int, int]]]: ...
def cuda_write(*, device: int, stream: int, to: int, words: Sequence[int]) -> None: ...

class CudaPlan:  # only where built with CUDA, like cuda_write
    def __init__(self, *, dtypes: Dtypes, columns: Columns, joint: bool) -> None: ...
    @property
    def table(self) -> bytes: ...
    @property
    def workspace_bytes(self) -> int: ...
    def step(
        self,
        *,
        device: int,
        stream: int,
        table: int,
        workspace: int,
        reference_norms: int,
        grads: int,
        lr: tuple[int, bool],
        lower: tuple[int, bool],
        upper: tuple[int, bool],
        grad_scale: int,
        found_inf: int,
        verify: bool,
        options: StepOptions,
    ) -> None: ...
