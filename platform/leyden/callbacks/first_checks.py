"""FirstChecks: what would go wrong later, found when training starts or the first batch comes."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from leyden.callbacks.checkpoints import Checkpoints
from leyden.data import DataModule
from leyden.errors import unknown
from leyden.rules import first_batch, unsaved_state, wrong_batch
from leyden.task import Task


class FirstChecks(Callback):
    """Refuses a state that could not be saved, and batches of other data modules that a task cannot read.

    A leyden DataModule looks at its first batches itself, before it transforms them.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's hook: where there is nothing to look at, the hooks of each step are hidden from Lightning."""
        if not isinstance(pl_module, Task) or isinstance(trainer.datamodule, DataModule):  # type: ignore[attr-defined]
            self._look_away()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook. Raises PluginError for a state that a checkpoint may not hold."""
        if trainer.checkpoint_callbacks and (breach := unsaved_state(_state(trainer, pl_module))):
            raise breach.error(type(pl_module))

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: what is logged is known. Raises UsageError for a best checkpoint by what never is."""
        best = Checkpoints.of(trainer)
        monitor = best.monitor if best is not None and type(best) is Checkpoints else None
        if monitor is not None and monitor.startswith("val") and monitor not in trainer.callback_metrics:
            raise unknown("metric", monitor, trainer.callback_metrics)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Lightning's hook."""
        self._look_at(trainer, pl_module, batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Lightning's hook."""
        if batch_idx == 0:
            self._require_read(trainer, pl_module, batch)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start

    def _look_at(self, trainer: Trainer, task: LightningModule, batch: Any) -> None:
        self._require_read(trainer, task, batch)
        self.on_train_batch_start = None  # type: ignore[assignment, method-assign]  # Lightning passes over it

    def _look_away(self) -> None:
        for stage in ("train", "validation", "test", "predict"):
            setattr(self, f"on_{stage}_batch_start", None)

    def _require_read(self, trainer: Trainer, task: LightningModule, batch: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(task, Task)
        declared = task.batch_type()
        where = f"its {first_batch(trainer.state.stage)} is"
        if declared is not None and (breach := wrong_batch(where, batch, declared)):
            raise breach.error(type(data))


def _state(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """What a checkpoint will hold, as far as a plugin decides."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    state: dict[str, Any] = {
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "callbacks": {callback.state_key: callback.state_dict() for callback in trainer.callbacks},  # type: ignore[attr-defined]
        "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "lr_schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
    }
    if data is not None:
        state["datamodule_hyper_parameters"] = dict(data.hparams)
        state[type(data).__qualname__] = data.state_dict()
    module.on_save_checkpoint(state)  # which may look at all of these
    return state
