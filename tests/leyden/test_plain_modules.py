"""LightningModules and LightningDataModules that were never written for leyden: fit, test, predict, resume."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from leyden.items import length, written
from leyden.main import main
from leyden.runs import read_checkpoint

SOURCE = '''"""Written by somebody who has never heard of leyden."""
import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from leyden.batches import ImageFacts, LabelledImages


class Classifier(pl.LightningModule):
    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
        self.layers(torch.zeros(1, 28 * 28))

    def forward(self, images):
        return self.layers(images)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))
        self.log("val_score", float(self.current_epoch))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return {"label": self(batch[0]).argmax(1), "first": batch[0][:, 0, 0, 0]}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr)


class Silent(Classifier):
    def validation_step(self, batch, batch_idx):
        pass


class Slashed(Classifier):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))


class Chooses(Classifier):
    monitor = "val_score"
    mode = "max"


class Large(Classifier):
    def predict_step(self, batch, batch_idx):
        return torch.zeros(len(batch[0]), 40, 40)


class Quiet(Classifier):
    def predict_step(self, batch, batch_idx):
        return None


class Without(Classifier):
    predict_step = pl.LightningModule.predict_step


class Vocabulary:
    pass


class Keeps(Classifier):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["words"] = {"first": 1, "second": [2, Vocabulary()]}


class Pictures(pl.LightningDataModule):
    def __init__(self, count: int = 21):
        super().__init__()
        self.count = count

    def setup(self, stage):
        images = torch.arange(self.count).float()[:, None, None, None].expand(-1, 1, 28, 28)
        self.data = TensorDataset(images, torch.arange(self.count) % 10)

    def make(self):
        return DataLoader(self.data, batch_size=4)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = make


class Unvalidated(Pictures):
    val_dataloader = pl.LightningDataModule.val_dataloader


class Unpredicted(Pictures):
    predict_dataloader = pl.LightningDataModule.predict_dataloader


class ByPosition(Pictures):
    def predict_dataloader(self):
        return DataLoader(self.data, 4)


class Twice(Pictures):
    def predict_dataloader(self):
        return [self.make(), DataLoader(self.data, batch_size=5)]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.full((1, 28, 28), float(i)), 0) for i in range(7)])


class Streaming(Pictures):
    def predict_dataloader(self):
        return DataLoader(Stream(), batch_size=3)


def labelled(rows):
    images, labels = zip(*rows)
    return LabelledImages(torch.stack(images), torch.stack(labels))


class KnowsFacts(Pictures):
    facts = ImageFacts(1, (28, 28), tuple("abcdefghij"))

    def make(self):
        return DataLoader(self.data, batch_size=4, collate_fn=labelled)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = make


class KnowsFactsGivesLists(Pictures):
    facts = KnowsFacts.facts
'''
TASK = ["--model", "ImageClassifier", "--model.net", "LeNet"]


@pytest.fixture(autouse=True)
def _foreign(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "foreign.py").write_text(SOURCE)
    yield
    sys.modules.pop("foreign", None)


def fit(model: str = "Classifier", data: str = "Pictures", *words: str, epochs: int = 1) -> int:
    named = ["--model", f"foreign.{model}", "--data", f"foreign.{data}", "--experiment", model.lower()]
    return main(["fit", *named, f"--trainer.max_epochs={epochs}", "--trainer.accelerator=cpu", *words])


def run_of(model: str = "Classifier", number: int = 1) -> Path:
    return Path("runs", model.lower(), str(number))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_fit_test_validate_predict_and_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(epochs=2) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(
        "Classifier is a plain LightningModule and Pictures is a plain LightningDataModule: without sample pictures, "
    )
    assert any(line.startswith("epoch 2/2 done  train_loss ") and "val_loss" in line for line in said)
    run = run_of()
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "metrics.csv", "curves.png", "log.txt"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}

    assert main(["test", str(run)]) == 0
    assert json.loads((run / "test/metrics.json").read_text()).keys() == {"checkpoint", "test_loss"}
    assert main(["validate", str(run)]) == 0
    assert main(["predict", str(run)]) == 0
    records = lines(run / "predictions/predictions.jsonl")
    assert [(each["index"], each["first"]) for each in records] == [(i, float(i)) for i in range(21)]

    assert fit("Classifier", "Pictures", "--resume", "auto", epochs=3) == 0
    assert len((run / "metrics.csv").read_text().splitlines()) >= 4
    assert read_checkpoint(run / "checkpoints/last.ckpt")["epoch"] == 2
    assert not run.with_name("2").exists()


@pytest.mark.parametrize(
    ("model", "data", "words", "monitor"),
    [
        ("Classifier", "Pictures", [], "val_loss"),
        ("Slashed", "Pictures", [], "val/loss"),
        ("Chooses", "Pictures", [], "val_score"),
        ("Classifier", "Pictures", ["--monitor", "max:val_score"], "val_score"),
        ("Silent", "Pictures", [], None),
        ("Classifier", "Unvalidated", [], None),
    ],
)
def test_what_picks_the_best_checkpoint(model: str, data: str, words: Sequence[str], monitor: str | None) -> None:
    assert fit(model, data, *words, epochs=3) == 0
    checkpoints = run_of(model) / "checkpoints"
    summary = json.loads((run_of(model) / "summary.json").read_text())
    assert summary["monitor"] == monitor
    assert (checkpoints / "last.ckpt").is_file()
    if monitor is None:
        assert not (checkpoints / "best.ckpt").exists()
        return
    best = read_checkpoint(checkpoints / "best.ckpt")
    scores = [callback for key, callback in best["callbacks"].items() if key.endswith(" best")]
    assert [score["monitor"] for score in scores] == [monitor]
    if monitor == "val_score":  # which rises with each epoch
        assert best["epoch"] == 2
        assert summary["mode"] == "max"


def test_a_metric_that_is_never_logged_is_refused_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("Classifier", "Pictures", "--monitor", "max:val_scor") == 2
    assert "unknown metric 'val_scor'. Did you mean val_score?" in capsys.readouterr().err
    assert not list(Path("runs").glob("*/*/checkpoints/*"))


def test_a_resumed_run_keeps_its_monitor(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("Classifier", "Pictures", "--monitor", "max:val_score") == 0
    assert "monitor: max:val_score" in (run_of() / "config.yaml").read_text()
    assert fit("Classifier", "Pictures", "--resume", "auto", epochs=2) == 2
    assert "monitor was max:val_score, not None." in capsys.readouterr().err


def test_the_monitor_of_a_task_can_be_chosen_too(fit_options: list[str]) -> None:
    assert main(["fit", *fit_options, "--monitor", "min:val/loss"]) == 0
    assert json.loads(Path("runs/lenet/1/summary.json").read_text())["monitor"] == "val/loss"
    best = read_checkpoint(Path("runs/lenet/1/checkpoints/best.ckpt"))["callbacks"]["Checkpoints best"]
    assert best["monitor"] == "val/loss"


# ---- predict


def test_what_is_no_text_becomes_a_file_of_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("Large") == 0
    folder = run_of("Large") / "predictions"
    folder.mkdir()
    (folder / "predictions.jsonl").write_text('{"index": 0, "input": "earlier"}\n')
    assert main(["predict", str(run_of("Large"))]) == 0
    assert [path.name for path in folder.iterdir()] == ["predictions.pt"]
    batches = torch.load(folder / "predictions.pt", weights_only=True)
    assert [batch["index"] for batch in batches] == [[*range(i, min(i + 4, 21))] for i in range(0, 21, 4)]
    assert batches[-1]["prediction"].shape == (1, 40, 40)
    assert "the predictions of 6 batches in" in capsys.readouterr().out


def test_nothing_predicted_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("Quiet") == 0
    assert main(["predict", str(run_of("Quiet"))]) == 0
    assert capsys.readouterr().out.endswith("predict_step gave nothing to write\n")


def test_several_loaders_and_one_without_indices() -> None:
    assert fit() == 0
    assert main(["predict", str(run_of()), "--data", "foreign.Twice", "--out", "twice"]) == 0
    found = [(each["dataloader"], each["index"], each["first"]) for each in lines(Path("twice/predictions.jsonl"))]
    assert found == [(loader, i, float(i)) for loader in range(2) for i in range(21)]
    assert main(["predict", str(run_of()), "--data", "foreign.Streaming", "--out", "stream"]) == 0
    assert [(each["index"], each["first"]) for each in lines(Path("stream/predictions.jsonl"))] == [
        (i, float(i)) for i in range(7)
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.png"], "Pictures is a plain LightningDataModule, which cannot read 'x.png'. predict RUN, without more,"),
        (["--prompt", "x"], "Pictures is a plain LightningDataModule, which cannot read 'x'."),
        (["--data", "foreign.Unpredicted"], "`predict_dataloader` must be implemented"),
        (["--data", "foreign.ByPosition"], "Lightning cannot predict with a DataLoader whose batch_size is given by"),
        (["--model", "foreign.Without"], "has no predict_step, and its forward does not take what the data gives"),
    ],
)
def test_predictions_that_cannot_be(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    assert main(["predict", str(run_of()), *words]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("prediction", "items"),
    [
        (torch.tensor([1.5, 2.5]), [1.5, 2.5]),
        (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        ({"a": torch.tensor([1, 2]), "b": ["x", "y"]}, [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ((torch.tensor([1, 2]), torch.tensor([3, 4])), [[1, 3], [2, 4]]),
        ([torch.tensor([1, 2]), torch.tensor([3])], [[1, 2], [3]]),
        ([{"boxes": torch.zeros(1, 4)}, {"boxes": torch.zeros(0, 4)}], [{"boxes": [[0.0] * 4]}, {"boxes": []}]),
        (["one", "two"], ["one", "two"]),
        (None, []),
        (torch.tensor(3.0), None),
        (torch.zeros(3, 2), None),
        ({"a": torch.zeros(3)}, None),
        (torch.zeros(2, 1001), None),
        (torch.zeros(2, dtype=torch.complex64), None),
        ([object(), object()], None),
        ("ab", None),
    ],
)
def test_predictions_of_two_items_are_divided(prediction: Any, items: list[Any] | None) -> None:
    assert written(prediction, 2) == items


@pytest.mark.parametrize(
    ("prediction", "count"),
    [(torch.zeros(3, 2), 3), ({"a": torch.zeros(4)}, 4), ((torch.zeros(5), torch.zeros(5)), 5), ([1, 2], 2), (7, 1)],
)
def test_how_many_items_a_prediction_is_of(prediction: Any, count: int) -> None:
    assert length(prediction) == count


# ---- together with leyden's own


def test_a_plain_module_on_leyden_data(data_options: list[str]) -> None:
    words = ["--model", "foreign.Classifier", *data_options, "--trainer.max_epochs=1", "--experiment=mixed"]
    assert main(["fit", *words]) == 0
    for name in ("b", "a"):
        Image.new("L", (28, 28), 90).save(f"{name}.png")
    assert main(["test", "runs/mixed/1"]) == 0
    assert main(["predict", "runs/mixed/1", "b.png", "a.png"]) == 0
    records = lines(Path("runs/mixed/1/predictions/predictions.jsonl"))
    assert [(each["index"], each["input"]) for each in records] == [(0, "b.png"), (1, "a.png")]
    assert records[0]["first"] != 90, "scaled as in training"


def test_a_task_on_plain_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *TASK, "--data", "foreign.KnowsFacts", "--trainer.max_epochs=1"]) == 0
    assert main(["test", "runs/lenet/1"]) == 0
    assert main(["predict", "runs/lenet/1"]) == 0
    records = lines(Path("runs/lenet/1/predictions/predictions.jsonl"))
    assert [each["index"] for each in records] == list(range(21))
    assert {"label", "score", "truth"} <= records[0].keys()

    assert main(["fit", *TASK, "--data", "foreign.Pictures"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ImageClassifier: its network is built from ImageFacts, and Pictures of ")
    assert "an attribute `facts`, set in setup(), and give LabelledImages" in message
    assert main(["fit", *TASK, "--data", "foreign.KnowsFactsGivesLists"]) == 2
    assert "its first validation batch is a list, declared is LabelledImages." in capsys.readouterr().err


def test_what_cannot_be_saved_is_refused_when_training_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("Keeps") == 2
    message = capsys.readouterr().err
    assert "Keeps of " in message
    assert "its state cannot be saved as plain values: words.second.1 is a foreign.Vocabulary." in message
    assert "epoch 1/1" not in Path("runs/keeps/1/log.txt").read_text()
    assert fit("Keeps", "Pictures", "--trainer.enable_checkpointing=false") == 0


def test_the_config_of_a_plain_run_loads_back() -> None:
    assert fit() == 0
    first = yaml.safe_load((run_of() / "config.yaml").read_text())
    assert main(["fit", "--config", str(run_of() / "config.yaml")]) == 0
    again = yaml.safe_load((run_of(number=2) / "config.yaml").read_text())
    assert again == first


SCRIPT = """
import subprocess
import sys
from leyden.main import main

two = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
made = ["--model", "foreign.Classifier", "--data", "foreign.Pictures"]
sys.exit(
    main(["fit", *made, "--trainer.max_epochs=1", "--experiment", "two", *two])
    or main(["test", "runs/two/1", *two])
    or main(["predict", "runs/two/1", *two])
)
"""


def test_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the predictions is that of the data, each item once, though one process has more of them."""
    Path("start.py").write_text(SCRIPT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = subprocess.run([sys.executable, "start.py"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    records = lines(Path("runs/two/1/predictions/predictions.jsonl"))
    assert [(each["index"], each["first"]) for each in records] == [(i, float(i)) for i in range(21)]
    assert main(["predict", "runs/two/1", "--out", "one"]) == 0
    assert records == lines(Path("one/predictions.jsonl"))
