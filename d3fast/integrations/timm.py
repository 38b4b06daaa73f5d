# SPDX-License-Identifier: Apache-2.0
"""D3 optimizers by name in ``timm.optim.create_optimizer_v2``, for timm's training scripts.

See docs/drop-in.md.
"""

from d3fast.optim import D3FusedAdamW, D3FusedSGD


def register_optimizers() -> None:
    """Let ``create_optimizer_v2`` find our classes as ``"d3fusedsgd"`` and ``"d3fusedadamw"``.

    timm then passes ``momentum`` (0.9 by default) to the first, weight decay in groups, and every
    option of the class that is given to ``create_optimizer_v2``.

    Raises:
        ImportError: timm is not installed, or too old to register optimizers (before 1.0.12).
    """
    try:
        from timm.optim import OptimInfo
        from timm.optim._optim_factory import default_registry
    except ImportError as error:
        raise ImportError(
            f"register_optimizers needs timm >= 1.0.12: pip install timm ({error})"
        ) from None
    sgd = OptimInfo(
        name="d3fusedsgd",
        opt_class=D3FusedSGD,
        description="SGD that moves tracked weights away from where they started",
        has_eps=False,
        has_momentum=True,
    )
    adamw = OptimInfo(
        name="d3fusedadamw",
        opt_class=D3FusedAdamW,
        description="AdamW that moves tracked weights away from where they started",
        has_betas=True,
    )
    for info in (sgd, adamw):
        default_registry.register(info)
