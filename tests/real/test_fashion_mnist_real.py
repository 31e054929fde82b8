"""The real Fashion-MNIST, from Debian's package dataset-fashion-mnist or from where LEYDEN_DATA says."""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from leyden.errors import DataError
from leyden_datamodules.fashion_mnist import FILES, FashionMNIST

RAW_BYTES = 60_000 * 28 * 28

pytestmark = pytest.mark.skipif(
    FashionMNIST()._found() is None,
    reason="Fashion-MNIST is neither under LEYDEN_DATA nor in /usr/share/datasets "
    "(apt-get install dataset-fashion-mnist)",
)


@pytest.fixture(scope="module")
def data() -> FashionMNIST:
    module = FashionMNIST(batch_size=256)
    module.prepare_data()
    module.setup("fit")  # verifies the checksums
    module.setup("test")
    return module


def test_counts(data: FashionMNIST) -> None:
    assert {name: len(source) for name, source in data.splits.items()} == {
        "train": 55_000,
        "val": 5_000,
        "test": 10_000,
    }
    counts = torch.zeros(10, dtype=torch.long)
    for split in ("train", "val"):
        source: Any = data.splits[split]
        counts += source.__getitems__(range(len(source))).labels.bincount(minlength=10)
    assert counts.tolist() == [6000] * 10
    test: Any = data.splits["test"]
    assert test.__getitems__(range(10_000)).labels.bincount().tolist() == [1000] * 10


def test_normalisation_is_the_training_sets(data: FashionMNIST) -> None:
    histogram = data._training_data.batch.images.flatten().bincount(minlength=256).double()
    pixels = torch.arange(256, dtype=torch.float64) / 255
    mean = (histogram * pixels).sum() / histogram.sum()
    std = ((histogram * (pixels - mean) ** 2).sum() / histogram.sum()).sqrt()
    assert mean.item() == pytest.approx(data.mean[0], abs=5e-5)
    assert std.item() == pytest.approx(data.std[0], abs=5e-5)


def test_every_file_is_verified(data: FashionMNIST, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "t10k-labels-idx1-ubyte", "0" * 32)
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.*15d484375f8d13e6eb1aabb0c3f46965"):
        FashionMNIST().load("test")


MEASURE = """
import json, tempfile, time
from pathlib import Path
from leyden_datamodules.fashion_mnist import FashionMNIST

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

with tempfile.TemporaryDirectory() as folder:  # what code and libraries take, they take before
    tiny = FashionMNIST(**FashionMNIST.fabricate(Path(folder)))
    tiny.setup("fit")
    next(iter(tiny.train_dataloader()))
data = FashionMNIST(batch_size=256)
before, start = resident(), time.process_time()
data.prepare_data()
data.setup("fit")
seconds = time.process_time() - start
batches = sum(1 for _ in data.train_dataloader())
print(json.dumps({"bytes": resident() - before, "seconds": seconds, "batches": batches}))
"""


def test_memory_and_time() -> None:
    measured = json.loads(subprocess.check_output([sys.executable, "-c", MEASURE], text=True))
    assert measured["batches"] == 215
    assert measured["bytes"] <= 1.2 * RAW_BYTES
    assert measured["seconds"] < 1.0  # of processor time; .3 s on an idle core
