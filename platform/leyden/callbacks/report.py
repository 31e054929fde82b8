"""Report: a line for each epoch, lines in between where there is no progress bar, and the throughput."""

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor

from leyden.callbacks.summary import trainable_parameters
from leyden.sharding import class_of

logger = logging.getLogger("leyden")
SHOWN = ("loss", "accuracy", "f1", "perplexity", "bleu", "map", "iou")
PLAIN_NAMES = ("val_acc", "val_accuracy")  # as modules not written for leyden have them


class Report(Callback):
    """Logs `train/samples_per_second`, and says how far training is.

    Args:
        seconds: least time between two lines inside an epoch; None where a progress bar shows as much.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._next_line = 0.0
        self._started = 0.0
        self._validated = 0.0
        self._validation_started = 0.0
        self._samples = 0
        self._epoch = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: an epoch that is resumed in its middle has no start of its own."""
        count = trainable_parameters(pl_module)
        net = getattr(pl_module, "net", pl_module)
        logger.info("%s, %s trainable parameters, on %s", class_of(net).__name__, f"{count:,}", pl_module.device)
        if batches := _effective_batch(trainer):
            logger.info("%s", batches)
        self._start_epoch(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        self._epoch_line(trainer)
        self._start_epoch(trainer)

    def _start_epoch(self, trainer: Trainer) -> None:
        self._epoch = trainer.current_epoch
        self._started = time.perf_counter()
        self._next_line = self._started + (self.seconds or 0.0)
        self._validated = 0.0
        self._samples = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's hook."""
        first = batch[0] if isinstance(batch, tuple | list) else batch
        self._samples += len(first) if isinstance(first, Tensor) else 1
        if self.seconds is None or time.perf_counter() < self._next_line:
            return
        self._next_line = time.perf_counter() + self.seconds
        loss = trainer.callback_metrics.get("train/loss_step")
        logger.info(
            "epoch %s  batch %d/%s%s  %s samples/s",
            _of(trainer.current_epoch + 1, trainer.max_epochs),
            batch_idx + 1,
            trainer.num_training_batches,
            "" if loss is None else f"  loss {loss.item():.4f}",
            _readable(self._rate(trainer)),
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        self._validated += time.perf_counter() - self._validation_started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        pl_module.log("train/samples_per_second", self._rate(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        self._epoch_line(trainer)

    def _epoch_line(self, trainer: Trainer) -> None:
        """What is known of the epoch that has ended: only now have all its metrics been logged."""
        watched = _metric(str(getattr(trainer.lightning_module, "monitor", "loss")))
        metrics_now = trainer.callback_metrics.items()
        values = {name: value for name, value in metrics_now if _is_shown(_metric(name), watched)}
        if not self._validated:  # what is there is of an earlier epoch
            values = {name: value for name, value in values.items() if not name.startswith(("val/", "val_"))}
        if not self._samples or not values:
            return
        metrics = "  ".join(f"{name} {value.item():.4f}" for name, value in sorted(values.items()))
        logger.info("epoch %s done  %s", _of(self._epoch + 1, trainer.max_epochs), metrics)

    def _rate(self, trainer: Trainer) -> float:
        seconds = time.perf_counter() - self._started - self._validated
        return self._samples * trainer.world_size / max(seconds, 1e-9)


def _effective_batch(trainer: Trainer) -> str:
    """What an optimizer step is made of, where that is more than one batch; "" where nothing is to be said."""
    accumulated = trainer.accumulate_grad_batches
    size = getattr(trainer.train_dataloader, "batch_size", None)
    if trainer.world_size * accumulated == 1 or not isinstance(size, int):
        return ""
    factors = {"processes": trainer.world_size, "batch_size": size, "accumulate_grad_batches": accumulated}
    shown = " x ".join(f"{count} {name}" for name, count in factors.items() if count > 1 or name == "batch_size")
    own = "; dropout and augmentation differ between processes" if trainer.world_size > 1 else ""
    return f"effective batch size {trainer.world_size * size * accumulated}: {shown}{own}"


def _readable(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _metric(name: str) -> str:
    """A metric's name without its stage."""
    return name.rpartition("/")[2]


def _is_shown(metric: str, watched: str) -> bool:
    """What picks the best checkpoint, and a loss that is part of another, are always of interest."""
    return metric == watched or metric in SHOWN or metric in PLAIN_NAMES or metric.endswith("_loss")


def _of(number: int, total: int | None) -> str:
    return f"{number}/{total}" if total and total > 0 else str(number)
