"""Checkpoints: the best by the task's metric, and the last, in the run's folder."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from leyden.callbacks.run_folder import RunFolder


class Checkpoints(ModelCheckpoint):
    """Keeps best.ckpt and last.ckpt after every epoch.

    Args:
        monitor: name of the metric that picks the best; None keeps the last only.
        mode: `min` or `max`.
    """

    CHECKPOINT_NAME_LAST = "last"

    def __init__(self, monitor: str | None, mode: str) -> None:
        super().__init__(
            filename="best" if monitor else "last",
            monitor=monitor,
            mode=mode,
            save_last=True if monitor else None,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's hook: by now the run has its folder."""
        folders = [callback for callback in trainer.callbacks if isinstance(callback, RunFolder)]  # type: ignore[attr-defined]
        if folders and folders[0].run is not None:
            self.dirpath = str(folders[0].run.checkpoints)
        super().setup(trainer, pl_module, stage)
