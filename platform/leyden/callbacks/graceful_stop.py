"""GracefulStop: Ctrl-C or SIGTERM saves at the end of the batch and leaves a run that can be resumed."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from leyden.callbacks.checkpoints import Checkpoints
from leyden.callbacks.run_folder import RunFolder
from leyden.errors import LeydenError

logger = logging.getLogger("leyden")


class StoppedError(LeydenError):
    """The user or the machine asked the run to stop; everything up to now is saved."""

    exit_status = 130


class GracefulStop(Callback):
    """The handler only sets a flag; a second signal ends the process at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._earlier: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: by now Lightning has set its own handlers."""
        if threading.current_thread() is threading.main_thread():
            self._earlier = {name: signal.signal(name, self._set_flag) for name in (signal.SIGINT, signal.SIGTERM)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook. An epoch that has trained its last batch is validated before the run stops."""
        is_last = trainer.is_last_batch
        is_step = is_last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not is_step or not self._asked(trainer):
            return
        path = _last_checkpoint(trainer)
        if path is not None:
            trainer.save_checkpoint(path)
        if not is_last:
            raise self._stopped(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: the epoch before is saved."""
        if self._asked(trainer):
            raise self._stopped(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: after it Lightning puts back its own handlers, so these must be back before."""
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning's hook."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for name, handler in self._earlier.items():
            signal.signal(name, handler)
        self._earlier = {}

    def _asked(self, trainer: Trainer) -> bool:
        """Whether any process was asked: all stop at the same batch."""
        asked = self.signal is not None
        return trainer.strategy.reduce_boolean_decision(asked, all=False) if trainer.world_size > 1 else asked

    def _stopped(self, trainer: Trainer) -> StoppedError:
        name = self.signal.name if self.signal else "a signal to another process"
        path = _last_checkpoint(trainer)
        if path is None or not path.is_file():
            saved = "Nothing was saved."
        else:
            saved = f"Everything is saved in {path}; go on with the same command and --resume auto."
        return StoppedError(f"stopped by {name} after training step {trainer.global_step}. {saved}")

    def _set_flag(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        logger.info("%s: saving after this batch (once more to stop at once)", self.signal.name)


def _last_checkpoint(trainer: Trainer) -> Path | None:
    run = RunFolder.of(trainer)
    return None if run is None or Checkpoints.of(trainer) is None else run.last
