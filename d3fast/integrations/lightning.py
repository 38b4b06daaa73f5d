# SPDX-License-Identifier: Apache-2.0
"""D3 in a ``lightning`` trainer: ``D3Callback``, a thin layer over ``common.Repair``.

The module's own ``configure_optimizers`` returns a ``D3FusedSGD`` or
``D3FusedAdamW`` and its ``training_step`` uses a
``CleanLoss``; see docs/integrations.md.
"""

from typing import Any

from torch import nn

from d3fast.integrations.common import Repair, RepairOptions, find_optimizer
from d3fast.training.loss import CleanLoss

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.trainer.states import TrainerFn
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "lightning":
        raise
    raise ImportError(
        "d3fast.integrations.lightning needs lightning: pip install 'd3fast[lightning]'"
    ) from None


class D3Callback(Callback):
    """Callback that repairs the module of a ``Trainer``.

    The warm start is taken before the first step; a resumed training takes none. The distances are
    logged after every epoch as ``d3/distance`` and ``d3/distance/<parameter>``. With
    ``max_acc_drop`` the sanity check runs over the whole validation set and gives the suspect's
    accuracy.

    Args:
        loss: the ``CleanLoss`` whose weight is lambda; the module's only one if ``None``.
        options: options of ``RepairOptions``. ``val_loss`` and ``val_acc`` are names that
            ``validation_step`` logs; with several processes log them with ``sync_dist=True``.

    Raises:
        ValueError: an option out of range; when the fit starts, an optimizer that is no D3
            optimizer, or dual ascent or ``max_acc_drop`` without validation data.
    """

    def __init__(self, loss: CleanLoss | None = None, **options: Any) -> None:
        super().__init__()
        self.repair = Repair(RepairOptions(**options))
        self._given = loss

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Validate the suspect on all batches before the first step where that is needed."""
        if stage == "fit" and self.repair.needs_suspect:
            trainer.num_sanity_val_steps = float("inf")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise for settings that cannot work, before anything is computed."""
        find_optimizer(trainer.optimizers)
        if self.repair.options.validates and not trainer.enable_validation:
            raise ValueError("dual_step and max_acc_drop need validation data, fit has none")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the warm start, or resume."""
        self.repair.begin(trainer.optimizers, self._given or _only_loss(pl_module))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step the schedule."""
        self.repair.begin_epoch(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the distances."""
        pl_module.log_dict(self.repair.readings(), on_step=False, on_epoch=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the suspect, or take a step of dual ascent and check the accuracy limit."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if trainer.sanity_checking:
            if self.repair.needs_suspect:
                self.repair.measure_suspect(trainer.callback_metrics)
        elif self.repair.validated(trainer.callback_metrics):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Return the state for the trainer's checkpoints."""
        return self.repair.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a trainer's checkpoint."""
        self.repair.load_state_dict(state_dict)


def _only_loss(module: nn.Module) -> CleanLoss | None:
    found = [m for m in module.modules() if isinstance(m, CleanLoss)]
    if len(found) > 1:
        raise ValueError(f"the module has {len(found)} CleanLoss, D3Callback(loss=) says which")
    return found[0] if found else None
