"""GracefulStop: saves now and then, and on a signal; stops so that the run can be resumed, and asks Slurm to do so."""

import logging
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from leyden import signals
from leyden.agreement import Agreement
from leyden.callbacks.checkpoints import Checkpoints
from leyden.callbacks.run_folder import RunFolder
from leyden.errors import CheckpointError, StoppedError, UsageError

logger = logging.getLogger("leyden")

NOTHING, SAVE, STOP, REQUEUE = range(4)  # what the processes agree on; the greatest wins
SECONDS = {"s": 1, "m": 60, "h": 3600}
REQUEUE_SECONDS = 60  # for Slurm's controller to answer


class GracefulStop(Callback):
    """Saves at the end of a batch: every so often, and when Ctrl-C, SIGTERM or SIGUSR1 asks to stop.

    A handler only sets a flag, and all processes agree at the same batch, one optimizer step later where there are
    several. A signal during validation waits for its end. A second signal ends the process at once.
    After SIGUSR1, which Slurm sends before it takes the machine away, the job is put back into Slurm's queue.

    Args:
        save_every: `500` saves every 500 optimizer steps, `10m` every ten minutes (s, m, h); None never in between.

    Raises:
        UsageError: for another save_every.
    """

    def __init__(self, save_every: str | None = None) -> None:
        self.signal: signal.Signals | None = None
        self.steps, self.seconds = _interval(save_every)
        self._agree = Agreement()
        self._decided = NOTHING
        self._saved_at_step = 0
        self._saved_at = 0.0  # or asked for a save, which comes with the next agreement
        self._earlier: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: by now Lightning has set its own handlers."""
        self._note_save(trainer)
        if threading.current_thread() is not threading.main_thread():
            return
        self.signal = signals.noted()
        names = [signal.SIGINT, signal.SIGTERM, *([] if signals.WARNING is None else [signals.WARNING])]
        self._earlier = {name: signal.signal(name, self._set_flag) for name in names}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook. An epoch that has trained its last batch is validated before the run stops."""
        is_last = trainer.is_last_batch
        is_step = is_last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not is_step:
            return
        self._decided = max(self._decided, self._agree.later(self._wanted(trainer)))
        by_steps = self.steps is not None and trainer.global_step - self._saved_at_step >= self.steps
        if self._decided >= STOP:
            self._save(trainer)
            if not is_last:
                self._stop(trainer)
        elif self._decided == SAVE or by_steps:
            self._decided = NOTHING
            if not is_last:  # soon it is saved anyway
                self._try_to_save(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: the epoch before is saved."""
        self._note_save(trainer)
        self._decided = max(self._decided, self._agree.now(self._wanted(trainer)))
        if self._decided >= STOP:
            self._stop(trainer)
        self._decided = NOTHING

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

    def _wanted(self, trainer: Trainer) -> int:
        """What this process knows of."""
        if self.signal is not None:
            return REQUEUE if self.signal is signals.WARNING else STOP
        if self.seconds is not None and trainer.is_global_zero and time.monotonic() - self._saved_at >= self.seconds:
            self._saved_at = time.monotonic()
            return SAVE
        return NOTHING

    def _note_save(self, trainer: Trainer) -> None:
        self._saved_at_step, self._saved_at = trainer.global_step, time.monotonic()

    def _save(self, trainer: Trainer) -> None:
        path = _last_checkpoint(trainer)
        if path is not None:
            trainer.save_checkpoint(path)
        self._note_save(trainer)

    def _try_to_save(self, trainer: Trainer) -> None:
        """Training goes on without a checkpoint that a full disk does not take: there is the one before."""
        try:
            self._save(trainer)
        except CheckpointError as error:
            trainer.strategy.barrier("Trainer.save_checkpoint")  # where the others wait
            self._note_save(trainer)
            logger.warning("training goes on: %s", error)

    def _stop(self, trainer: Trainer) -> None:
        """Raises StoppedError, in all processes."""
        path = _last_checkpoint(trainer)
        is_saved = path is not None and path.is_file()
        saved = f"Everything is saved in {path}" if is_saved else "Nothing was saved"
        following = "; go on with the same command and --resume auto." if is_saved else "."
        if self._decided == REQUEUE and "SLURM_JOB_ID" in os.environ:
            following = self._queue_again(trainer, saved)
        name = self.signal.name if self.signal else "a signal to another process"
        raise StoppedError(f"stopped by {name} after training step {trainer.global_step}. {saved}{following}")

    def _queue_again(self, trainer: Trainer, saved: str) -> str:
        """How the message goes on; only the first process has more to tell."""
        # Slurm ends the processes of a job that it queues again: they do so by themselves, and say what happened.
        if self._earlier.pop(signal.SIGTERM, None) is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        trainer.strategy.barrier("signals are ignored")
        following = "."
        if trainer.is_global_zero:
            logger.info("%s at step %d; the job goes back into the queue", saved, trainer.global_step)
            following = f"; {_requeue(os.environ['SLURM_JOB_ID'])}"
        trainer.strategy.barrier("requeued")  # Slurm ends the job when a process ends with a status of failure
        return following

    def _set_flag(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        logger.info("%s: saving after this batch (once more to stop at once)", self.signal.name)


def _interval(text: str | None) -> tuple[int | None, float | None]:
    """Steps or seconds."""
    if text is None:
        return None, None
    found = re.fullmatch(r"(\d+)([smh]?)", text)
    if found is None or int(found[1]) == 0:
        raise UsageError(
            f"save_every is {text!r}; it must be a number of optimizer steps (500), a time (30s, 10m, 2h), or null."
        )
    number, unit = int(found[1]), found[2]
    return (None, number * SECONDS[unit]) if unit else (number, None)


def _requeue(job: str) -> str:
    """Put this job back into Slurm's queue; what to tell of it."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        command = ["scontrol", "requeue", job]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=REQUEUE_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip()
        return f"but scontrol requeue {job} failed ({said}): submit it again, with --resume auto."
    return f"Slurm starts job {job} again."


def _last_checkpoint(trainer: Trainer) -> Path | None:
    run = RunFolder.of(trainer)
    return None if run is None or Checkpoints.of(trainer) is None else run.last
