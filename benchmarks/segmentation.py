"""Speed of segmentation on CamVid: `fit` against a bare PyTorch loop, waiting for data, the metric's share.

python benchmarks/segmentation.py [fcn8s|unet] [--root FOLDER] [--epochs N] [--batches N] [--workers N] [--threads N]

The bare loop trains the same network on crops that `fit` trains on, already decoded, cropped and normalised. Waiting is
the time in which `fit` has no batch to train on while the workers make one. The metric's share is of the time that
validation takes, which also has the network and the data in it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from _side_by_side import Alternate, Loop, bare_loop, fit_beside
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from leyden.batches import VOID
from leyden.cli import TrainingCLI
from leyden.data import TrainLoader, data_folders

BATCH_SIZE = 8
LEARNING_RATE = 0.01
EFFICIENTNET = ["--model.net.trunk", "timm/efficientnet_lite0", "--model.net.head_channels", "96"]
CASES = {  # network and crops of configs/segmentation/camvid_*.yaml
    "fcn8s": (["--model.net", "FCN", *EFFICIENTNET, "--model.net.stride", "8"], "[288,384]"),
    "unet": (["--model.net", "UNet", "--model.net.channels", "[16,32,64,128,256]"], "[256,352]"),
}


class MetricTime(Callback):
    """How much of validation goes into what Task.measure and the metrics do."""

    timed = ("measure", "update_metrics", "on_validation_epoch_end")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.total = 0.0
        self._started = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name in self.timed:
            setattr(pl_module, name, self._timed(getattr(pl_module, name)))
        self._started = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.total += time.perf_counter() - self._started
        for name in self.timed:
            delattr(pl_module, name)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - started

        return run


class Waiting:
    """Takes the place of TrainLoader.__iter__; seconds: how long each epoch's batches were waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._iterate = TrainLoader.__iter__

    def __call__(self, loader: TrainLoader) -> Iterator[Any]:
        batches = self._iterate(loader)
        self.seconds.append(0.0)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.seconds[-1] += time.perf_counter() - started
            if batch is None:
                return
            yield batch


def make_loops(cli: TrainingCLI, metric: MetricTime, batches: int) -> dict[str, Loop]:
    """The bare loop, with a second network of the same options, on the first crops that `fit` trains on."""
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    trainer.callbacks.insert(0, metric)
    data.prepare_data()
    data.setup("fit")
    source = data.splits["train"]
    crops = data.transform(source.__getitems__(range(min(len(source), batches * BATCH_SIZE))), training=True)
    net = model.network_factory(data.facts.channels, len(data.facts.class_names))
    net.to(memory_format=torch.channels_last)

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        return F.cross_entropy(logits, masks.long(), ignore_index=VOID)

    return {"bare": bare_loop(net, crops.images, crops.masks, BATCH_SIZE, loss, LEARNING_RATE)}


def report(result: Alternate, waiting: Waiting, metric: MetricTime, items: int) -> None:
    """Print the three ratios; the first epoch warms up."""
    result.report(items)
    shares = [waited / fit for waited, fit in zip(waiting.seconds[1:], result.seconds["fit"][1:], strict=True)]
    median = statistics.median(shares)
    print(f"waiting for data: median {median:.1%} of fit (from {min(shares):.1%} to {max(shares):.1%})")
    print(f"metric: {metric.seconds / metric.total:.1%} of validation ({metric.seconds:.2f} of {metric.total:.2f} s)")


def main() -> None:
    """Parse the command line and print the ratios."""
    folders = data_folders("CamVid")
    root = next((folder for folder in folders if folder.is_dir()), folders[0])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?", choices=CASES, default="fcn8s")
    parser.add_argument("--root", default=str(root), help="the folder of CamVid in VOC's layout; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each loop; the first only warms up")
    parser.add_argument("--batches", type=int, default=20, help=f"batches of {BATCH_SIZE} in an epoch")
    parser.add_argument("--workers", type=int, default=2, help="processes that make `fit`'s batches")
    parser.add_argument("--threads", type=int, default=None)
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    network, crop_size = CASES[chosen.case]
    waiting, metric = Waiting(), MetricTime()
    with tempfile.TemporaryDirectory() as runs, mock.patch.object(TrainLoader, "__iter__", lambda self: waiting(self)):
        options = [
            *("--model", "Segmenter", *network, "--model.channels_last", "true"),
            *("--model.optimizer", "SGD", "--model.optimizer.lr", str(LEARNING_RATE)),
            *("--data", "VOCSegmentation", "--data.root", chosen.root, "--data.batch_size", str(BATCH_SIZE)),
            *("--data.crop_size", crop_size, "--data.scale_jitter", "[0.75,2]", "--data.colour_jitter", "0.3"),
            *("--data.num_workers", str(chosen.workers), "--trainer.max_epochs", str(chosen.epochs)),
            *("--trainer.limit_train_batches", str(chosen.batches), "--trainer.limit_val_batches", str(chosen.batches)),
            *("--trainer.enable_progress_bar", "false", "--runs", runs),
        ]
        result = fit_beside(options, lambda cli: make_loops(cli, metric, chosen.batches))
    print(f"{chosen.case}, batch {BATCH_SIZE}, {chosen.workers} workers, {torch.get_num_threads()} threads,", end=" ")
    print(f"torch {torch.__version__}")
    report(result, waiting, metric, chosen.batches * BATCH_SIZE)


if __name__ == "__main__":
    main()
