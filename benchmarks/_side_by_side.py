"""Runs a user's `fit` and other training loops in turn, epoch by epoch, in one process."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from leyden.cli import Request, TrainingCLI, prepare_process, set_up_output

Loop = Callable[[], None]
Loss = Callable[[Tensor, Tensor], Tensor]


def bare_loop(
    net: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    batch_size: int,
    loss: Loss,
    rate: float,
    batches: int | None = None,
) -> Loop:
    """The shortest honest loop: preloaded float32 tensors, plain SGD, no metrics, no logging, no checkpoints."""
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)

    def epoch() -> None:
        net.train()
        for indices in torch.randperm(len(inputs)).split(batch_size)[:batches]:
            value = loss(net(inputs[indices]), targets[indices])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    return epoch


class Alternate(Callback):
    """Before each epoch of `fit` runs one epoch of every other loop, and times them all.

    An epoch of `fit` is everything between two of these moments but validation: training metrics, logging, curves,
    sample pictures and checkpoints are inside.
    """

    def __init__(self, loops: dict[str, Loop]) -> None:
        self.loops = loops
        self.seconds: dict[str, list[float]] = {name: [] for name in ("fit", *loops)}
        self._fit_started = self._validation_started = self._validated = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch()
        for name, loop in self.loops.items():
            started = time.perf_counter()
            loop()
            self.seconds[name].append(time.perf_counter() - started)
        self._validated = 0.0
        self._fit_started = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated += time.perf_counter() - self._validation_started

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch()

    def _end_epoch(self) -> None:
        if self._fit_started:
            self.seconds["fit"].append(time.perf_counter() - self._fit_started - self._validated)

    def report(self, items: int) -> None:
        """Medians, and the median of the ratios of neighbouring epochs; the first epoch of each warms up."""
        for name, seconds in self.seconds.items():
            median = statistics.median(seconds[1:])
            rates = " ".join(_readable(items / value) for value in seconds[1:])
            print(f"{name:<12} {median:7.3f} s an epoch, {_readable(items / median)} items/s (epochs: {rates})")
        for name in self.loops:
            pairs = zip(self.seconds[name][1:], self.seconds["fit"][1:], strict=True)
            ratios = sorted(other / fit for other, fit in pairs)
            median = statistics.median(ratios)
            print(f"fit's speed over {name}: median {median:.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f})")


def _readable(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def fit_beside(options: list[str], make_loops: Callable[[TrainingCLI], dict[str, Loop]]) -> Alternate:
    """Run `fit` with these options as the command line does, with other loops in turn."""
    set_up_output()
    cli: Any = TrainingCLI(Request.parse("fit", options))
    prepare_process(cli.trainer)
    alternate = Alternate(make_loops(cli))
    cli.trainer.callbacks.insert(0, alternate)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    return alternate
