"""The CPU backend compiled for aarch64 and run by an emulator: the bits of this machine's kernels.

Needs ``g++-aarch64-linux-gnu`` and ``qemu-user``, packages of Debian.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch

from d3fast import D3FusedAdamW, D3FusedSGD
from d3fast.optim.backends import cpu, native

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"
COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
FLAGS = (
    "-std=c++17",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-psabi",
    "-fvisibility=hidden",
    f"-I{CSRC}",
)
LIBRARIES = "/usr/aarch64-linux-gnu"

HEADER = struct.Struct("<10q16s16s16s18d")  # Header of remote_steps.cpp
# Written by a step, in the driver's order.
COLUMNS = ("compensation", "momentum", "variance", "steps", "distance")

SHAPES = ((300, 500), (131_072 + 77,), (7, 5), (), (0,), (1,), (300,))
OPTIONS = {
    "plain": {"distance_weight": 0.0, "constraint": None, "momentum": 0.9},
    "no momentum": {"momentum": 0.0, "weight_decay": 0.1},
    "heavy ball": {"momentum": 0.9, "dampening": 0.3, "constraint": "norm_ball", "radius": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True, "maximize": True, "weight_decay": 0.05},
    "one norm": {"momentum": 0.9, "distance_p": 1.0, "constraint": "distance_ball", "radius": 0.7},
    "group": {"momentum": 0.9, "scope": "group", "constraint": "distance_floor", "radius": 1.5},
    "shell": {"momentum": 0.9, "constraint": "distance_shell", "radius": (0.9, 1.1)},
    "strong decay": {"momentum": 0.0, "weight_decay": 12.0},
    "adamw": {"cls": D3FusedAdamW, "weight_decay": 0.1},
    "adamw, decoupled push": {
        "cls": D3FusedAdamW,
        "betas": (0.8, 0.99),
        "decoupled_push": True,
        "maximize": True,
        "constraint": "distance_ball",
        "radius": 0.7,
    },
    "plain adamw": {"cls": D3FusedAdamW, "distance_weight": 0.0, "constraint": None},
}
DTYPES = {
    "f32": {"dtype": torch.float32},
    "f32, bf16 reference": {"dtype": torch.float32, "reference_dtype": torch.bfloat16},
    "f32, bf16 state": {
        "dtype": torch.float32,
        "reference_dtype": torch.bfloat16,
        "momentum_dtype": torch.bfloat16,
    },
    "f64": {"dtype": torch.float64},
    "bf16": {"dtype": torch.bfloat16},
    "bf16, f32 momentum": {"dtype": torch.bfloat16, "momentum_dtype": torch.float32},
    "f16": {"dtype": torch.float16},
    "f16, f32 momentum": {"dtype": torch.float16, "momentum_dtype": torch.float32},
}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """Starts the program that takes steps on an emulated aarch64."""
    if COMPILER is None or EMULATOR is None:
        pytest.skip("needs g++-aarch64-linux-gnu and qemu-user")
    program = tmp_path_factory.mktemp("aarch64") / "steps"
    backend = [
        path
        for path in (*CSRC.glob("common/*.cpp"), *CSRC.glob("cpu/*.cpp"))
        if path.name != "bind.cpp"
    ]
    flags = ("-O3", "-ffp-contract=off", "-DD3_SIMD_LEVEL=baseline", "-pthread")
    command = [COMPILER, *FLAGS, *flags, HERE / "remote_steps.cpp", *backend, "-ldl"]
    subprocess.run([*command, "-o", program], check=True)
    running = subprocess.Popen(
        [EMULATOR, "-L", LIBRARIES, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    yield running
    running.stdin.close()
    running.stdout.close()
    assert running.wait() == 0


class EmulatedLauncher(cpu.CpuLauncher):
    """Takes the steps of a group in the emulator."""

    program = None
    threads = 2

    def __init__(self, tensors, joint_norm, shard=None):
        super().__init__(tensors, joint_norm, shard)
        self._tensors, self._joint = tensors, joint_norm
        self._norms = [cpu.euclidean_norm(t) for t in tensors["reference"]]

    def executor(self):
        return None  # no direct call of the extension

    def step(self, grads, first_step, verify, options, grad_scale, found_inf):
        theta, references = self._tensors["theta"], self._tensors["reference"]
        columns = [self._tensors[name] for name in COLUMNS]
        flags = first_step or [False] * len(theta)
        parts = [self._header(verify, options, grad_scale)]
        parts.append(struct.pack(f"<{len(theta)}q", *(p.numel() for p in theta)))
        parts.append(struct.pack(f"<{len(theta)}q", *flags))
        parts.append(struct.pack(f"<{len(self._norms)}d", *self._norms))
        for i, p in enumerate(theta):
            arrays = [p, p.grad, *(column[i] for column in columns if column)]
            parts += [_bytes(t) for t in [*arrays, *references[i : i + 1]]]
        self.program.stdin.write(b"".join(parts))
        self.program.stdin.flush()
        for i, p in enumerate(theta):
            for t in (p, p.grad, *(column[i] for column in columns if column)):
                given = bytearray(self.program.stdout.read(t.numel() * t.element_size()))
                if given:
                    t.detach().view(-1).copy_(torch.frombuffer(given, dtype=t.dtype))

    def _header(self, verify, options, grad_scale):
        names = native.dtype_names(self._tensors)
        columns = [bool(self._tensors[n]) for n in ("compensation", "reference", *COLUMNS[1:])]
        numbers = ("momentum", "dampening", "weight_decay", "nesterov", "maximize", "adamw")
        numbers += ("beta1", "beta2", "eps", "decoupled_push", "distance_weight", "p")
        return HEADER.pack(
            *(len(self._tensors["theta"]), self._joint, verify, self.threads, *columns),
            *(names[name].encode() for name in ("weight", "momentum", "reference")),
            *(options.lr.value, *(getattr(options, name) for name in numbers)),
            *(int(options.center), options.lower.value, options.upper.value, options.relative),
            1.0 if grad_scale is None else float(grad_scale),
        )


def _bytes(tensor):
    flat = tensor.detach().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


@pytest.fixture
def on_aarch64(emulated, monkeypatch):
    """From now on ``backend="fused"`` takes its steps in the emulator."""

    def switch():
        monkeypatch.setattr(EmulatedLauncher, "program", emulated)
        monkeypatch.setattr(cpu, "CpuLauncher", EmulatedLauncher)

    return switch


def parameters(dtype, seed=0):
    """Two tensors that several threads share, ones that are no multiple of any vector, an empty."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=torch.float64).add(3).to(dtype) for s in SHAPES]


def trajectory(dtype, steps=3, grad_scale=None, cls=D3FusedSGD, **options):
    """Weights, gradients and state after some steps; a norm is stale before the last one."""
    params = [torch.nn.Parameter(p) for p in parameters(dtype)]
    options = {"lr": 0.05, "backend": "fused", **options}
    opt = cls(params, track="all", reference=parameters(dtype, seed=1), **options)
    g = torch.Generator().manual_seed(2)
    for step in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=g, dtype=torch.float64).to(dtype)
        if grad_scale is not None:
            opt.grad_scale, opt.found_inf = torch.tensor(grad_scale), torch.tensor(0.0)
        if step == steps - 1:
            params[2].data.view(-1)[3] += 0.5
        opt.step()
    state = [t for p in params for _, t in sorted(opt.state[p].items())]
    return [*params, *(p.grad for p in params), *state]


def same_bits(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def relative_error(got, want):
    got, want = (torch.cat([t.detach().double().flatten() for t in ts]) for ts in (got, want))
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_steps_have_the_bits_of_this_machine(options, dtypes, on_aarch64):
    options = {**dtypes, **options}
    here = trajectory(**options)
    on_aarch64()
    assert same_bits(trajectory(**options), here)


@pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES)
def test_gradients_are_unscaled_alike(dtypes, on_aarch64):
    here = trajectory(grad_scale=3.0, momentum=0.9, **dtypes)
    on_aarch64()
    assert same_bits(trajectory(grad_scale=3.0, momentum=0.9, **dtypes), here)


@pytest.mark.parametrize("threads", [1, 5])
def test_the_number_of_threads_changes_no_bit(threads, on_aarch64, monkeypatch):
    here = trajectory(torch.float32, **OPTIONS["heavy ball"])
    on_aarch64()
    monkeypatch.setattr(EmulatedLauncher, "threads", threads)
    assert same_bits(trajectory(torch.float32, **OPTIONS["heavy ball"]), here)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_steps_follow_float64_on_the_reference_backend(options, on_aarch64):
    want = trajectory(torch.float64, backend="reference", **options)[: len(SHAPES)]
    on_aarch64()
    single, double = (
        trajectory(t, **options)[: len(SHAPES)] for t in (torch.float32, torch.float64)
    )
    assert relative_error(single, want) <= 1e-5
    assert relative_error(double, want) <= 1e-13


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bf16", "f16"])
def test_every_number_is_read_as_it_is_and_rounded_to_nearest_even(half, on_aarch64):
    every = torch.arange(1 << 16).to(torch.int32).to(torch.int16).view(half)
    half_way = 1 << (15 if half == torch.bfloat16 else 12)
    words = every.float().view(torch.int32)
    middles = torch.cat([words, words + half_way])
    values = torch.cat([middles, middles + 1, middles - 1]).view(torch.float32)
    on_aarch64()

    stored = torch.nn.Parameter(torch.zeros(values.numel(), dtype=half))
    step_by_momentum(stored, values, lr=1.0)
    want = (0 - values).to(half)
    same = (stored == want) | (stored.isnan() & want.isnan())
    assert bool(same.all())

    kept = torch.nn.Parameter(every.clone())
    step_by_momentum(kept, torch.zeros(every.numel()), lr=0.0)
    same = torch.where(every.isfinite(), kept == every, ~kept.isfinite())  # inf * 0 is NaN
    assert bool(same.all())


def step_by_momentum(param, buffer, lr):
    """Subtracts lr times a float32 buffer; the gradient has no part in it."""
    opt = D3FusedSGD(
        [param],
        **{"lr": lr, "momentum": 1.0, "dampening": 1.0, "momentum_dtype": torch.float32},
        **{"distance_weight": 0.0, "constraint": None, "backend": "fused"},
    )
    opt.state[param]["momentum_buffer"] = buffer.clone()
    param.grad = torch.zeros_like(param)
    opt.step()
