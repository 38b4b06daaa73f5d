# SPDX-License-Identifier: Apache-2.0
"""Host time of an eager step, not waiting for the GPU: ``python -m benchmarks.gpu.host``.

Where it exceeds the time of a replay, the GPU waits for the host in eager steps.
"""

from collections.abc import Callable, Sequence

from benchmarks.gpu.figures import emit
from benchmarks.gpu.problems import d3, problem, sgd, synchronize, worker_arguments
from benchmarks.gpu.replay import TORCH_SGD
from benchmarks.speed.timing import Contender, host_seconds, interleave, quartiles
from d3fast.optim import D3FusedSGD

LISTS = ("60x36k", "ResNet-18", "ViT-B/16")


def with_new_gradients(opt: D3FusedSGD) -> Callable[[], None]:
    """Return a function that moves every gradient to another address."""

    def move() -> None:
        for group in opt.param_groups:
            for p in group["params"]:
                p.grad = p.grad.clone()

    return move


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the lists of tensors."""
    parser = worker_arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each list")
    given = parser.parse_args(arguments)
    for name in LISTS:
        drawn = problem(name, given.device, given.shrink)
        moving = d3(drawn, "free")
        contenders = [
            Contender("free", d3(drawn, "free").step),
            Contender("norm_sphere", d3(drawn, "norm_sphere").step),
            Contender("free, gradients moved", moving.step, with_new_gradients(moving)),
            Contender(TORCH_SGD, sgd(drawn).step),
        ]
        samples = interleave(contenders, drawn.device, given.seconds, host_seconds)
        synchronize(drawn.device)
        for contender, times in samples.items():
            emit(f"{name}, {contender}: host", 1e6 * quartiles(times)[1], "us")


if __name__ == "__main__":
    main()
