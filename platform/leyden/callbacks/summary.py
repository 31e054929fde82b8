"""RunSummary: keeps a run's summary.json, what the run is and how far it has come."""

import json
import logging
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torchmetrics import MetricCollection

from leyden.callbacks.run_folder import RunFolder
from leyden.errors import DataError
from leyden.folders import write_text
from leyden.history import SUMMARY, Summary, base_name
from leyden.plugins import path_of
from leyden.sharding import class_of
from leyden.task import Task

logger = logging.getLogger("leyden")
SHARE = 0.01  # of the training time goes into rewriting the file; short epochs may pass unwritten


class RunSummary(Callback):
    """Writes summary.json when training starts, between epochs, and when it ends or is stopped."""

    def __init__(self) -> None:
        self._summary = Summary()
        self._path: Path | None = None
        self._started = self._writing_seconds = 0.0
        self._seconds_before: float | None = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: network and device are known. A resumed run goes on counting its seconds."""
        run = RunFolder.of(trainer)
        if run is None or not trainer.is_global_zero:
            return
        self._path = run.path / SUMMARY
        self._started = time.perf_counter()
        self._seconds_before = _seconds_so_far(self._path) if trainer.global_step else 0.0
        self._summary = describe(trainer, pl_module)
        self._write(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: the epoch before is done."""
        if self._writing_seconds <= SHARE * (time.perf_counter() - self._started):
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        self._write(trainer)
        self._path = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning's hook: a run that was stopped tells how far it came."""
        self.on_train_end(trainer, pl_module)

    def _write(self, trainer: Trainer) -> None:
        """A summary that cannot be written is no reason to lose the training."""
        if self._path is None:
            return
        began = time.perf_counter()
        before = self._seconds_before
        seconds = None if before is None else round(before + began - self._started, 3)
        self._summary = replace(
            self._summary, seconds=seconds, optimizer_steps=trainer.global_step, epochs=trainer.current_epoch
        )
        try:
            write_text(self._path, json.dumps(asdict(self._summary), indent=2) + "\n")
        except OSError as error:
            logger.warning("%s could not be written: %s", self._path, error.strerror or error)
        self._writing_seconds += time.perf_counter() - began


def describe(trainer: Trainer, pl_module: LightningModule) -> Summary:
    """What a run is, before its first step."""
    batch_size = getattr(trainer.train_dataloader, "batch_size", None)
    items = batch_size * trainer.world_size * trainer.accumulate_grad_batches if isinstance(batch_size, int) else None
    return Summary(
        task=path_of(type(pl_module)),
        network=path_of(class_of(getattr(pl_module, "net", None) or pl_module)),
        trainable_parameters=trainable_parameters(pl_module),
        monitor=getattr(pl_module, "monitor", None),
        mode=getattr(pl_module, "mode", None),
        better=_directions(pl_module) if isinstance(pl_module, Task) else {},
        device=_device_name(trainer.strategy.root_device),
        processes=trainer.world_size,
        effective_batch_size=items,
    )


def trainable_parameters(module: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _directions(task: Task[Any]) -> dict[str, str]:
    """`min` or `max` for each metric that says so, by the name under which a stage logs it."""
    found = {"loss": "min"}
    for collection in task.metrics.values():
        assert isinstance(collection, MetricCollection)
        stated = {name: metric.higher_is_better for name, metric in collection.items()}
        found |= {name: "max" if higher else "min" for name, higher in stated.items() if higher is not None}
    return found | {base_name(task.monitor): task.mode}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _seconds_so_far(path: Path) -> float | None:
    """None where it is not known how long the steps took that were done before."""
    with suppress(DataError):
        summary = Summary.read(path)
        return None if summary is None else summary.seconds
    return None
