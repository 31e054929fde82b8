"""The rule that a training which is killed loses nothing but time, tried with a process that kills itself."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from leyden.plugins import path_of
from leyden.runs import read_checkpoint
from leyden.testing.commands import Bench, TaskClass, history
from leyden.testing.data import DataClass
from leyden.testing.rules import equal, require

EPOCH = 4  # batches, where the data has so many
SAVED_EVERY = 2


class Kill(Callback):
    """Kills its own process (SIGKILL) when training begins with batch `step`, counted from 0 over all epochs."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Lightning's hook."""
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def check_killed(task: TaskClass, data: DataClass, folder: Path, options: Sequence[str] = ()) -> None:
    """A task that is killed in the middle of an epoch and goes on ends as one that was not: the same weights.

    Arguments as for `check_task`; here dropout and random augmentation are welcome: a checkpoint holds the states of
    all generators of random numbers.
    """
    _check_killed(Bench(data, folder, task, options))


def _check_killed(bench: Bench) -> None:
    words = ["--trainer.max_epochs=2", f"--trainer.limit_train_batches={EPOCH}", "--data.batch_size=2"]
    whole = bench.fit("unharmed", *words)
    steps = int(read_checkpoint(whole.last)["global_step"])
    step = steps - 1  # what was saved last is in the middle of the second epoch, with a batch behind it that is lost
    fatal = [f"--trainer.callbacks+={path_of(Kill)}", f"--trainer.callbacks.step={step}"]
    killed = bench.fit_words("killed", *words, f"--save_every={SAVED_EVERY}")
    bench.launch([*killed, *fatal], status=-signal.SIGKILL)
    run = bench.first_run("killed")
    saved = int(read_checkpoint(run.last)["global_step"])
    found = f"{bench.task.__name__}, killed behind {step} steps and saved every {SAVED_EVERY}, has {saved} saved"
    require(0 <= step - saved < SAVED_EVERY, found, "No more may be lost than what came after the last checkpoint.")
    bench.fit(*killed, "--resume", "auto")
    name = bench.task.__name__
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        same = equal(*(read_checkpoint(each.last)[part] for each in (run, whole)))
        why = "Whatever a training step depends on must be in the checkpoint. Does something random differ?"
        require(same, f"{name} killed at step {step} and resumed ends with another {part}", why)
    epochs = [row["epoch"] for row in history(run) if "val/loss" in row]
    require(epochs == sorted(set(epochs)), f"metrics.csv of {name} has epochs {epochs}", "Each belongs there once.")
