"""Take steps with the kernels of an installed d3fast and compare them with the formula.

``make wheels`` and cibuildwheel run this file with every Python that they build for; it needs no
other package, not even torch. A folder given as argument, such as an unpacked wheel, comes first on
the path. The step is that of ``D3FusedSGD`` on the sphere, DESIGN section 2:

    u = w delta / ||delta||,  d = g + decay theta - u,  v <- d, then momentum v + d
    theta <- theta - lr v,    theta <- theta ||theta_0|| / ||theta||
"""

import math
import platform
import random
import sys
from array import array

NUMEL, STEPS, THREADS = 100_003, 3, 2
LR, MOMENTUM, DECAY, PUSH = 0.05, 0.9, 1e-3, 0.7
TOLERANCE = 1e-6  # of fp32 numbers below 1


def norm(numbers):
    return math.sqrt(math.fsum(x * x for x in numbers))


def by_formula(theta, start, grad):
    """Return theta and ||theta - theta_0|| after the steps, in double precision."""
    radius, velocity = norm(start), None
    for _ in range(STEPS):
        delta = [a - b for a, b in zip(theta, start, strict=True)]
        scale = PUSH / norm(delta)
        d = [g + DECAY * t - scale * x for g, t, x in zip(grad, theta, delta, strict=True)]
        velocity = (
            d if velocity is None else [MOMENTUM * v + x for v, x in zip(velocity, d, strict=True)]
        )
        theta = [t - LR * v for t, v in zip(theta, velocity, strict=True)]
        scale = radius / norm(theta)
        theta = [scale * t for t in theta]
    return theta, norm(a - b for a, b in zip(theta, start, strict=True))


def by_kernels(extension, theta, start, grad):
    """Take the steps in place; return the cached norm ||theta - theta_0||."""
    momentum, distance = array("f", bytes(4 * NUMEL)), array("d", [math.nan])
    columns = {"theta": theta, "reference": start, "momentum": momentum, "distance": distance}
    plan = extension.CpuPlan(
        dtypes=extension.DTypeNames(weight="float32", momentum="float32", reference="float32"),
        columns=extension.Columns(
            numel=[NUMEL], **{name: [column.buffer_info()[0]] for name, column in columns.items()}
        ),
        reference_norms=[norm(start)],
        joint_norm=False,
    )
    options = extension.StepOptions(
        lr=LR,
        momentum=MOMENTUM,
        weight_decay=DECAY,
        distance_weight=PUSH,
        center=extension.Center.origin,
        lower=1.0,
        upper=1.0,
        relative=True,
    )
    for step in range(STEPS):
        plan.step(
            grads=[grad.buffer_info()[0]],
            first_step=[step == 0],
            verify=True,
            options=options,
            executor=THREADS,
        )
    return distance[0]


def main(folders):
    """Print what was tested; raise where a number differs."""
    sys.path[:0] = folders
    from d3fast import _C

    draw = random.Random(0)
    theta, start, grad = (array("f", (draw.uniform(-1, 1) for _ in range(NUMEL))) for _ in range(3))
    expected, far = by_formula(list(theta), list(start), list(grad))
    distance = by_kernels(_C, theta, start, grad)
    error = max(abs(a - b) for a, b in zip(theta, expected, strict=True))
    if error > TOLERANCE or not math.isclose(distance, far, rel_tol=TOLERANCE):
        raise SystemExit(f"wrong step: error {error}, distance {distance} instead of {far}")
    level = _C.build_info()["simd_level"]
    print(f"Python {platform.python_version()}, {level}: {STEPS} steps right to {error:.0e}")


if __name__ == "__main__":
    main(sys.argv[1:])
