"""Start-up: seconds of `list` and `--version`, and of `fit` to its first batch against a bare Lightning script.

The same with packages of others installed, of which nothing is used. Aims with 50: `list` in 0.7 s, `fit` in 1.2 times
what it takes with none.

python benchmarks/startup.py [--runs N] [--plugins N]
"""

import argparse
import os
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


# a package of somebody else, as pip leaves it: a task, a network and a data module, as long as real ones are
METADATA = """Metadata-Version: 2.1
Name: dummy-{number}
Version: 1.0
Requires-Dist: leyden>=0.1
"""
ENTRY_POINTS = """[leyden.tasks]
Task{number} = dummy_{number}.parts:Task
[leyden.networks]
Network{number} = dummy_{number}.parts:Network
[leyden.data]
Data{number} = dummy_{number}.parts:Data
"""
CLASS = """
class {name}:
    '''The {name} of somebody else.'''

    def __init__(self, width: int = 4) -> None:
        self.width = width
"""
METHOD = """
    def method_{number}(self, a: int, b: int) -> int:
        return a * self.width + b
"""


def install(count: int, site: Path) -> None:
    """Put so many packages with plugins into a folder."""
    methods = "".join(METHOD.format(number=number) for number in range(30))
    classes = "".join(CLASS.format(name=name) + methods for name in ("Task", "Network", "Data"))
    for number in range(count):
        info, package = site / f"dummy_{number}-1.0.dist-info", site / f"dummy_{number}"
        info.mkdir(parents=True)
        package.mkdir()
        (info / "METADATA").write_text(METADATA.format(number=number))
        (info / "entry_points.txt").write_text(ENTRY_POINTS.format(number=number))
        (package / "__init__.py").write_text("")
        (package / "parts.py").write_text(f"raise RuntimeError('nobody asked for this')\n{classes}")


def main() -> None:
    """Parse the command line, measure in turn, and print medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--plugins", type=int, default=50, help="packages of others that are installed")
    chosen = parser.parse_args()
    crowded = f"with {chosen.plugins} packages"
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        script, site = Path(folder, "bare.py"), Path(folder, "site")
        script.write_text(BARE)
        Path(folder, "first_batch.py").write_text(FIRST_BATCH)
        install(chosen.plugins, site)
        fit = [*LEYDEN, *FIT, "--runs", folder]
        commands = {
            "--version": ([*LEYDEN, "--version"], ""),
            "list": ([*LEYDEN, "list"], ""),
            f"list {crowded}": ([*LEYDEN, "list"], str(site)),
            "bare script": ([sys.executable, str(script)], ""),
            "fit": (fit, ""),
            f"fit {crowded}": (fit, str(site)),
        }
        for _ in range(chosen.runs + 1):
            for name, (command, path) in commands.items():
                environment = {**os.environ, "PYTHONPATH": path}
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, cwd=folder, env=environment)
                seconds.setdefault(name, []).append(time.perf_counter() - started)
    measured = {name: found[1:] for name, found in seconds.items()}  # the first run fills caches
    for name, found in measured.items():
        values = " ".join(f"{value:.2f}" for value in found)
        print(f"{name:<22} median {statistics.median(found):.2f} s ({values})")
    print(f"fit over the bare script, to the end of the first batch: {ratio(measured['fit'], measured['bare script'])}")
    print(f"fit {crowded} over fit: {ratio(measured[f'fit {crowded}'], measured['fit'])}")


def ratio(ours: list[float], others: list[float]) -> str:
    """The median of the runs' ratios."""
    return f"median {statistics.median(one / other for one, other in zip(ours, others, strict=True)):.3f}"


if __name__ == "__main__":
    main()
