"""What keeping freed memory is worth: `fit` against a bare loop under glibc's defaults, on large activations.

python benchmarks/memory.py [--pairs N] [--steps N]

The network is the three-level convolutional base of a small detector on 32 pictures of 256 x 256. Each measurement is a
process of its own, since the allocator's settings hold for a whole process; the two kinds take turns.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

SIDE, BATCH_SIZE, CLASSES = 256, 32, 10
WARM_UP = 2


def main() -> None:
    """Parse the command line, measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="steps of a measurement, after two that warm up")
    parser.add_argument("--measure", choices=["fit", "bare"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        print({"fit": measure_fit, "bare": measure_bare}[chosen.measure](chosen.steps))
        return
    seconds: dict[str, list[float]] = {"bare": [], "fit": []}
    for _ in range(chosen.pairs):
        for kind, found in seconds.items():
            command = [sys.executable, __file__, "--measure", kind, "--steps", str(chosen.steps)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append(float(output.split()[-1]))
    for kind, found in seconds.items():
        values = " ".join(f"{value:.2f}" for value in found)
        print(f"{kind}: median {statistics.median(found):.2f} s a step ({values})")
    ratios = [bare / fit for bare, fit in zip(seconds["bare"], seconds["fit"], strict=True)]
    print(f"fit's speed over the bare loop under glibc's defaults: median {statistics.median(ratios):.2f}")


class BlockNetwork(nn.Sequential):
    """Three blocks of two 3x3 convolutions with batch norm and a 2x2 max-pool: 16, 32, 64 channels."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        layers: list[nn.Module] = []
        channels = in_channels
        for width in (16, 32, 64):
            for _ in range(2):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def measure_bare(steps: int) -> float:
    """Median seconds of a step of a bare loop."""
    net = BlockNetwork(3, CLASSES)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    images = torch.rand(BATCH_SIZE, 3, SIDE, SIDE)
    labels = torch.randint(0, CLASSES, (BATCH_SIZE,))
    times = []
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - started)
    return statistics.median(times[WARM_UP:])


def measure_fit(steps: int) -> float:
    """Median seconds of a step of `fit`, from the end of one batch to the end of the next."""
    from lightning.pytorch import Callback
    from PIL import Image

    from leyden.cli import Request, TrainingCLI, prepare_process

    class Clock(Callback):
        """Notes when each batch ends."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_batch_end(self, *_: Any) -> None:
            self.ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        for index in range(BATCH_SIZE * 2):
            path = Path(folder, "pictures", str(index % CLASSES), f"{index}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8).numpy()).save(path)
        cli: Any = TrainingCLI(
            Request.parse(
                "fit",
                [
                    *("--model", "ImageClassifier", "--model.net", "memory.BlockNetwork", "--model.optimizer", "SGD"),
                    *(
                        "--data",
                        "ImageFolder",
                        "--data.root",
                        f"{folder}/pictures",
                        "--data.batch_size",
                        str(BATCH_SIZE),
                    ),
                    *("--data.image_size", str(SIDE), "--data.cache", "true", "--trainer.limit_val_batches", "0"),
                    *("--trainer.max_steps", str(WARM_UP + steps + 1), "--trainer.max_epochs", "-1"),
                    *("--runs", f"{folder}/runs", "--trainer.enable_progress_bar", "false"),
                ],
            )
        )
        prepare_process(cli.trainer)
        clock = Clock()
        cli.trainer.callbacks.insert(0, clock)
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
    times = [end - start for start, end in zip(clock.ends[WARM_UP:], clock.ends[WARM_UP + 1 :], strict=False)]
    return statistics.median(times)


if __name__ == "__main__":
    main()
