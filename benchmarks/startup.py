"""Start-up: seconds of `list` and `--version`, and of `fit` to its first batch against a bare Lightning script.

python benchmarks/startup.py [--runs N]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LEYDEN = [sys.executable, "-m", "leyden.main"]
FIT = ["fit", "--model", "ImageClassifier", "--model.net", "LeNet", "--model.optimizer", "SGD"]
FIT += ["--data", "FashionMNIST", "--data.batch_size", "256"]
FIT += ["--trainer.max_steps", "1", "--trainer.callbacks", "first_batch.FirstBatch"]

# both end as soon as the first batch is done: what comes after is no start-up
FIRST_BATCH = """
import os
from lightning.pytorch import Callback

class FirstBatch(Callback):
    def on_train_batch_end(self, *_):
        os._exit(0)
"""

# the same network, data and first batch, with lightning and nothing of ours but the network and the files' reader
BARE = """
import torch, torch.nn.functional as F
import lightning.pytorch as pl
from first_batch import FirstBatch
from torch.utils.data import DataLoader, TensorDataset
from leyden_datamodules.fashion_mnist import FashionMNIST
from leyden_plugins.classification.networks.lenet import LeNet

class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = LeNet(1, 10)
    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = F.cross_entropy(self.net(images.float() / 255), labels)
        self.log("loss", loss)
        return loss
    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self.net(images.float() / 255), labels))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

batch = FashionMNIST().load("train").__getitems__(range(55_000))
loader = DataLoader(TensorDataset(*batch), batch_size=256, shuffle=True)
held_out = DataLoader(TensorDataset(*(tensor[:5000] for tensor in batch)), batch_size=256)
trainer = pl.Trainer(max_steps=1, callbacks=[FirstBatch()], enable_progress_bar=False)
trainer.fit(Classifier(), loader, held_out)
"""


def main() -> None:
    """Parse the command line, measure in turn, and print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "bare.py")
        script.write_text(BARE)
        Path(folder, "first_batch.py").write_text(FIRST_BATCH)
        commands = {
            "--version": [*LEYDEN, "--version"],
            "list": [*LEYDEN, "list"],
            "bare script": [sys.executable, str(script)],
            "fit": [*LEYDEN, *FIT, "--runs", folder],
        }
        for _ in range(chosen.runs + 1):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, cwd=folder)
                seconds.setdefault(name, []).append(time.perf_counter() - started)
    for name, found in seconds.items():
        values = " ".join(f"{value:.2f}" for value in found[1:])
        print(f"{name:<12} median {statistics.median(found[1:]):.2f} s ({values})")
    ratios = [fit / bare for fit, bare in zip(seconds["fit"][1:], seconds["bare script"][1:], strict=True)]
    print(f"fit over the bare script, to the end of the first batch: median {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
