"""GracefulStop: Ctrl-C or SIGTERM saves at the end of the batch and leaves a run that can be resumed."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

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

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Lightning's hook: all processes stop at the same batch."""
        asked = self.signal is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if not asked:
            return
        name = self.signal.name if self.signal else "a signal to another process"
        saved = self._save(trainer)
        raise StoppedError(f"stopped by {name} after training step {trainer.global_step}. {saved}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's hook; not called after an exception."""
        self._restore_handlers()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning's hook."""
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for name, handler in self._earlier.items():
            signal.signal(name, handler)
        self._earlier = {}

    def _save(self, trainer: Trainer) -> str:
        checkpoints: Any = trainer.checkpoint_callback
        if checkpoints is None:
            return "Nothing was saved, since checkpointing is off."
        path = Path(checkpoints.dirpath, "last.ckpt")
        trainer.save_checkpoint(path)
        return f"Everything is saved in {path}; go on with the same command and --resume auto."

    def _set_flag(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        logger.info("%s: saving after this batch (once more to stop at once)", self.signal.name)
