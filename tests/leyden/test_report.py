"""What a run says about itself: a line for each epoch, lines in between, samples per second; and curves of it all."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from matplotlib.figure import Figure

from leyden.callbacks import Report
from leyden.main import main


class Slow(Callback):
    """A batch takes a hundredth of a second, a validation a tenth."""

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(0.01)

    def on_validation_epoch_start(self, *_: Any) -> None:
        time.sleep(0.1)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What was logged."""
    monkeypatch.setattr(logging.getLogger("leyden"), "propagate", True)
    caplog.set_level(logging.INFO, logger="leyden")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "leyden"]


def train(toy: Any, report: Report, **trainer: Any) -> Any:
    """12 points in batches of 3."""
    trainer = toy.trainer(max_epochs=2, callbacks=[Slow(), report], **trainer)
    trainer.fit(toy.Task(), toy.Data(toy.points(17), batch_size=3))
    return trainer


def test_an_epoch_ends_with_a_line_of_its_metrics(toy: Any, lines: Any) -> None:
    trainer = train(toy, Report(seconds=None))
    found = lines()
    assert found[0] == "Linear, 4 trainable parameters, on cpu"
    assert [line.split("  ")[0] for line in found[1:]] == ["epoch 1/2 done", "epoch 2/2 done"]
    for name in ("train/loss", "val/loss"):
        assert f"{name} {trainer.callback_metrics[name].item():.4f}" in found[-1]


def test_lines_in_between_where_there_is_no_progress_bar(toy: Any, lines: Any) -> None:
    train(toy, Report(seconds=0.0), log_every_n_steps=2)
    inside = [line for line in lines() if "batch" in line]
    assert [line.split("  ")[:2] for line in inside] == [
        [f"epoch {epoch}/2", f"batch {batch}/4"] for epoch in (1, 2) for batch in (1, 2, 3, 4)
    ]
    assert all(line.endswith("samples/s") for line in inside)
    assert "  loss " in inside[1]


def test_no_lines_before_their_time(toy: Any, lines: Any) -> None:
    train(toy, Report(seconds=3600.0))
    assert not [line for line in lines() if "batch" in line]


def test_the_rate_counts_training_and_not_validation(toy: Any) -> None:
    """12 samples in 4 batches of at least 10 ms are at most 300 in a second; with the validation 12 / 0.14 s = 86."""
    rate = train(toy, Report(seconds=None)).callback_metrics["train/samples_per_second"].item()
    assert 100 < rate < 300


def test_curves_are_drawn_while_training_goes_on_and_at_its_end(
    fit_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def curves(series: dict[str, Any], best: dict[str, Any]) -> Figure:
        drawn.append((series, best))
        return Figure()

    monkeypatch.setattr("leyden.draw.curves", curves)
    words = ["--model.optimizer=SGD", "--model.optimizer.lr=0", "--trainer.max_epochs=3"]
    assert main(["fit", *fit_options, *words]) == 0

    counts = [len(series["val/loss"]) for series, _ in drawn]
    assert counts[0] == 1, "after the first epoch; later ones may wait while drawing costs more than training"
    assert counts[-1] == 3
    series, best = drawn[-1]
    assert [epoch for epoch, _ in series["train/loss"]] == [1.0, 2.0, 3.0]
    assert best == {"val/accuracy": (1.0, series["val/accuracy"][0][1])}, "of equals the first, which best.ckpt is"
    assert "train/samples_per_second" not in series


def test_a_picture_that_cannot_be_written_does_not_stop_training(
    fit_options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("leyden.draw.save", full)
    assert main(["fit", *fit_options]) == 0
    assert "a picture could not be made: OSError: [Errno 28] No space left on device" in capsys.readouterr().out
    assert Path("runs/lenet/1/checkpoints/last.ckpt").is_file()
