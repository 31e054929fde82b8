"""What a LightningModule that was not written for leyden gets: a best checkpoint, and facts about the data in it."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from leyden import __version__
from leyden.callbacks.checkpoints import Checkpoints
from leyden.data import DataModule
from leyden.plugins import path_of
from leyden.task import SECTION

LOSSES = ("val/loss", "val_loss")  # the names under which most modules log it


class BestByLoss(Checkpoints):
    """Keeps best.ckpt by the validation loss, if the module logs it under a usual name; else nothing."""

    def __init__(self) -> None:
        super().__init__(LOSSES[0])
        self._found = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook; the one before training shows what is logged, in time for the run's summary."""
        self._find(trainer, pl_module)
        if self._found:
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook, for data without a validation split."""
        if self._found:
            super().on_train_epoch_end(trainer, pl_module)

    def _find(self, trainer: Trainer, module: Any) -> None:
        logged = [name for name in LOSSES if name in trainer.callback_metrics]
        if self._found or not logged:
            return
        self._found = True
        self.monitor = logged[0]
        if not hasattr(module, "monitor"):
            module.monitor, module.mode = self.monitor, self.mode


class PlainModule(Callback):
    """Puts into checkpoints what a Task puts there itself: who made it, and the facts about a leyden DataModule."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        facts = data.facts if isinstance(data, DataModule) else None
        section = checkpoint.setdefault(SECTION, {})
        section["version"] = __version__
        section["task"] = path_of(type(pl_module))
        section["facts"] = None if facts is None else facts.to_primitives()
