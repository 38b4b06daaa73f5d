"""The CUDA kernels compiled for the host (see cuda_on_host.cpp), as a launcher of plans."""

import ctypes
import math
from pathlib import Path

import torch

from d3fast.optim.backends import native

SOURCES = (Path(__file__).parent / "cuda_on_host.cpp", "common/partition.cpp")
FLAGS = ("-O1", "-pthread", "-Wno-unknown-pragmas")
POINTER, INT64, DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
BOOL, UNSIGNED, INT, NAME = ctypes.c_bool, ctypes.c_uint, ctypes.c_int, ctypes.c_char_p


class HostGroup(ctypes.Structure):
    _fields_ = (
        *((name, NAME) for name in ("weight", "momentum_dtype", "reference_dtype")),
        ("tensors", INT64),
        *((n, POINTER) for n in ("theta", "numel", "compensation", "reference", "momentum")),
        *((name, POINTER) for name in ("variance", "steps", "distance", "reference_norms")),
        *((name, POINTER) for name in ("whole", "counts")),
        ("joint_norm", BOOL),
        *((name, INT64) for name in ("chunk_length", "lag")),
        ("memory", POINTER),
        ("memory_size", INT64),
    )


class HostStep(ctypes.Structure):
    _fields_ = (
        ("grads", POINTER),
        ("verify", BOOL),
        *((name, UNSIGNED) for name in ("blocks", "host_threads", "shuffle")),
        *((name, DOUBLE) for name in ("lr", "lower", "upper")),
        *((name, POINTER) for name in ("lr_at", "lower_at", "upper_at")),
        *((name, BOOL) for name in ("lr_is_double", "lower_is_double", "upper_is_double")),
        *((name, POINTER) for name in ("grad_scale", "found_inf")),
        *((name, DOUBLE) for name in ("momentum", "dampening", "weight_decay")),
        *((name, DOUBLE) for name in ("beta1", "beta2", "eps")),
        *((name, BOOL) for name in ("nesterov", "maximize", "adamw", "decoupled_push")),
        ("distance_weight", DOUBLE),
        *((name, INT) for name in ("p", "center")),
        ("relative", BOOL),
        ("phase", INT),
        *((name, POINTER) for name in ("sums", "totals", "held")),
    )


class HostReport(ctypes.Structure):
    _fields_ = (
        ("launches", INT),
        ("most_blocks", UNSIGNED),
        ("wide_accesses", INT64),
        ("verified", BOOL),
    )


def _array(values, kind=POINTER):
    return ctypes.cast((kind * len(values))(*values), POINTER) if values else None


def _address(tensor):
    return None if tensor is None else tensor.data_ptr()


def _scalar(name, value):
    """As on a device: a number in a tensor is for the kernels alone to read."""
    if not isinstance(value, torch.Tensor):
        return float(value)
    is_double = value.dtype == torch.float64
    return native.extension.Scalar(device=value.data_ptr(), is_double=is_double)


class HostLauncher:
    """Stands in for a device's launcher: same tables, same kernels, run on the host."""

    captured = False
    library = None
    chunk_length = 1000
    lag = 2
    blocks = 5
    host_threads = 3
    report = None  # of the last step
    shuffle = 0

    def __init__(self, tensors, joint_norm, shard=None):
        self._tensors = tensors
        names = native.dtype_names(tensors)
        norms = [float(torch.linalg.vector_norm(t.double())) for t in tensors["reference"]]
        if shard is not None:
            norms = list(map(float, shard.reference_norms))
        chunks = sum(math.ceil(t.numel() / self.chunk_length) for t in tensors["theta"])
        self._memory = torch.zeros(1024 * (chunks + len(tensors["theta"]) + 1), dtype=torch.uint8)
        self._group = HostGroup(
            weight=names["weight"].encode(),
            momentum_dtype=names["momentum"].encode(),
            reference_dtype=names["reference"].encode(),
            tensors=len(tensors["theta"]),
            numel=_array([t.numel() for t in tensors["theta"]], INT64),
            **{name: _array([t.data_ptr() for t in c]) for name, c in tensors.items()},
            reference_norms=_array(norms, DOUBLE),
            whole=None if shard is None else _array(shard.whole, INT64),
            counts=None if shard is None else _array(shard.counts, BOOL),
            joint_norm=joint_norm,
            memory=self._memory.data_ptr(),
            memory_size=self._memory.numel(),
        )

    def options(self, group):
        return native.step_options(group, _scalar)

    def executor(self):
        return None  # the extension cannot call it

    def step(self, grads, first_step, verify, options, grad_scale, found_inf, **part):
        flags = first_step or [False] * len(grads)
        entries = [x for pair in zip(grads, flags, strict=True) for x in pair]
        numbers = {}
        for name in ("lr", "lower", "upper"):
            scalar = getattr(options, name)
            numbers[name] = math.nan if scalar.device else scalar.value
            numbers[f"{name}_at"] = scalar.device or None
            numbers[f"{name}_is_double"] = scalar.is_double
        plain = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
        adamw = ("adamw", "beta1", "beta2", "eps", "decoupled_push")
        step = HostStep(
            grads=_array(entries, INT64),
            verify=verify,
            blocks=self.blocks,
            host_threads=self.host_threads,
            shuffle=HostLauncher.shuffle,
            **numbers,
            grad_scale=_address(grad_scale),
            found_inf=_address(found_inf),
            **{name: getattr(options, name) for name in (*plain, *adamw)},
            distance_weight=options.distance_weight,
            p=options.p,
            center=int(options.center),
            relative=options.relative,
            phase=int(part.get("phase", native.extension.Phase.whole)),
            **{name: part.get(name) for name in ("sums", "totals", "held")},
        )
        self._group.chunk_length, self._group.lag = self.chunk_length, self.lag
        HostLauncher.report = report = HostReport()
        code = self.library.host_step(
            ctypes.byref(self._group), ctypes.byref(step), ctypes.byref(report)
        )
        assert code != -1, "the memory is too small for the partition"
        assert code != -2, "there are no kernels for these dtypes"
        assert code == 0, "the step left a counter or a flag that the next one starts from"
        HostLauncher.shuffle += 1
