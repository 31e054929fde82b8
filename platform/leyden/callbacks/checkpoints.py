"""Checkpoints: the best by the task's metric, and the last, in the run's folder."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from leyden.callbacks.run_folder import RunFolder


class Checkpoints(ModelCheckpoint):
    """Keeps best.ckpt by a metric, or, without one, last.ckpt of every epoch.

    A run has one of each: Lightning's own `save_last` writes only when the best is written.

    Args:
        monitor: name of the metric that picks the best; None keeps the last.
        mode: `min` or `max`.
    """

    def __init__(self, monitor: str | None = None, mode: str = "min") -> None:
        super().__init__(
            filename="best" if monitor else "last",
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=None if monitor else True,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self.on_train_batch_end = None  # type: ignore[assignment]  # it saves between epochs only: see leyden.overhead

    @property
    def state_key(self) -> str:
        """Names this callback in checkpoints and, at every hook of every step, in the profiler: Lightning's is slow."""
        return f"{type(self).__name__} {self.filename}"

    @staticmethod
    def of(trainer: Trainer) -> "Checkpoints | None":
        """What keeps a run's best checkpoint, or its last where no metric picks one; None where nothing is kept."""
        return next((found for found in trainer.checkpoint_callbacks if isinstance(found, Checkpoints)), None)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's hook: by now the run has its folder."""
        run = RunFolder.of(trainer)
        if run is not None:
            self.dirpath = str(run.checkpoints)
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best so far stays the best, also when the run's folder was moved; a new run starts without one."""
        best = Path(self.dirpath or "", f"{self.filename}{self.FILE_EXTENSION}")
        if not best.is_file():
            return
        scores = {str(best): score for score in state_dict["best_k_models"].values()}
        paths = {"dirpath": self.dirpath, "best_k_models": scores}
        paths |= {key: str(best) for key in ("best_model_path", "kth_best_model_path") if state_dict[key]}
        super().load_state_dict(state_dict | paths)
