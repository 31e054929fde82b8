"""Speed of `fit` on Fashion-MNIST against a bare PyTorch loop, and against torchvision's data set with a DataLoader.

python benchmarks/classification.py [lenet|resnet] [--epochs N] [--threads N]

The bare loop indexes preloaded float tensors; the torchvision loop decodes with ToTensor in a DataLoader. All three
train the same network with the same batch size and optimizer, in turn, in one process.
"""

import argparse
import atexit
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _side_by_side import Loop, bare_loop, fit_beside
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import ToTensor

from leyden.cli import TrainingCLI
from leyden_plugins.classification.networks.lenet import LeNet
from leyden_plugins.classification.networks.resnet import ResNet

BATCH_SIZE = 256
LEARNING_RATE = 0.1
TRAINING_IMAGES = 55_000
EPOCH = -(-TRAINING_IMAGES // BATCH_SIZE)
CASES: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "lenet": (lambda: LeNet(1, 10), ["--model.net", "LeNet"]),
    "resnet": (lambda: ResNet(1, 10), ["--model.net", "ResNet"]),
}


def make_loops(
    cli: TrainingCLI, build: Callable[[], nn.Module], with_torchvision: bool, batches: int
) -> dict[str, Loop]:
    """The other loops, on the very images that `fit` trains on."""
    data: Any = cli.datamodule
    data.prepare_data()
    images, labels = data.load("train").__getitems__(range(TRAINING_IMAGES))
    loops: dict[str, Loop] = {
        "bare": bare_loop(build(), images.float() / 255, labels, BATCH_SIZE, F.cross_entropy, LEARNING_RATE, batches)
    }
    if with_torchvision:
        loops["torchvision"] = torchvision_loop(build(), images, labels)
    return loops


def torchvision_loop(net: nn.Module, images: Tensor, labels: Tensor) -> Loop:
    """The tutorial's loop: torchvision's data set, ToTensor, a DataLoader."""
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):  # torchvision wants both parts to be there
        header = struct.pack(">4i", 2051, len(images), 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
        header = struct.pack(">2i", 2049, len(labels))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.to(torch.uint8).numpy().tobytes())
    loader = DataLoader(datasets.FashionMNIST(str(root), transform=ToTensor()), BATCH_SIZE, shuffle=True)

    def epoch() -> None:
        net.train()
        for inputs, targets in loader:
            loss = F.cross_entropy(net(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def main() -> None:
    """Parse the command line and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?", choices=CASES, default="lenet")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each loop; the first only warms up")
    parser.add_argument("--batches", type=int, default=EPOCH, help="batches of an epoch; default: all")
    parser.add_argument("--threads", type=int, default=None)
    chosen = parser.parse_args()
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    build, options = CASES[chosen.case]
    with tempfile.TemporaryDirectory() as runs:
        options = [
            *("--model", "ImageClassifier", *options, "--model.optimizer", "SGD"),
            *("--model.optimizer.lr", str(LEARNING_RATE), "--data", "FashionMNIST"),
            *("--data.batch_size", str(BATCH_SIZE), "--trainer.max_epochs", str(chosen.epochs)),
            *("--trainer.limit_train_batches", str(chosen.batches)),
            *("--trainer.enable_progress_bar", "false", "--runs", runs),
        ]
        result = fit_beside(options, lambda cli: make_loops(cli, build, chosen.case == "lenet", chosen.batches))
    print(f"{chosen.case}, batch {BATCH_SIZE}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    result.report(min(TRAINING_IMAGES, chosen.batches * BATCH_SIZE))


if __name__ == "__main__":
    main()
