"""summary.json: what a run says about itself, from its first step on, and what that costs."""

import json
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from leyden.callbacks import RunFolder, RunSummary
from leyden.callbacks.summary import describe
from leyden.history import Summary
from leyden.main import main
from leyden.overhead import STEP_HOOKS

PATH = Path("runs/toy/1/summary.json")


def read() -> Summary:
    summary = Summary.read(PATH)
    assert summary is not None
    return summary


class AtStep(Callback):
    """Does something before training step `step`, counted from 0."""

    def __init__(self, step: int, action: Any) -> None:
        self.step = step
        self.action = action

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.step:
            self.action()


def train(toy: Any, *callbacks: Callback, **trainer: Any) -> Any:
    """12 points in 4 batches of 3."""
    run = RunFolder(Path("runs/toy"), "seed_everything: 0\n")
    trainer = toy.trainer(callbacks=[run, RunSummary(), *callbacks], **{"max_epochs": 2, **trainer})
    trainer.fit(toy.Task(), toy.Data(toy.points(17), batch_size=3))
    return trainer


def test_a_finished_run_says_what_it_is_and_what_it_did(toy: Any) -> None:
    began = time.perf_counter()
    train(toy, AtStep(5, lambda: time.sleep(0.2)), accumulate_grad_batches=2)
    took = time.perf_counter() - began

    content = json.loads(PATH.read_text())
    assert 0.2 < content.pop("seconds") < took
    assert content.pop("task").endswith("Regression")
    assert content == {
        "network": "torch.nn.modules.linear.Linear",
        "trainable_parameters": 3 + 1,
        "monitor": "val/loss",
        "mode": "min",
        "better": {"loss": "min", "mse": "min"},
        "device": "cpu",
        "processes": 1,
        "effective_batch_size": 3 * 2,
        "optimizer_steps": 2 * 2,
        "epochs": 2,
    }


def test_a_killed_run_has_it_from_its_first_step_on(toy: Any) -> None:
    found: list[Summary] = []
    train(toy, AtStep(0, lambda: found.append(read())))
    assert (found[0].trainable_parameters, found[0].epochs, found[0].optimizer_steps) == (4, 0, 0)


def test_between_epochs_it_is_brought_up_to_date(toy: Any) -> None:
    found: list[Summary] = []
    slow = [AtStep(step, lambda: time.sleep(0.3)) for step in (1, 5)]
    train(toy, *slow, AtStep(9, lambda: found.append(read())), max_epochs=3)
    assert (found[0].epochs, found[0].optimizer_steps) == (2, 8)
    assert found[0].seconds is not None
    assert found[0].seconds >= 0.6


def test_short_epochs_pass_unwritten(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[float] = []

    def slow_disk(path: Path, text: str) -> None:
        written.append(time.perf_counter())
        time.sleep(0.05)

    monkeypatch.setattr("leyden.callbacks.summary.write_text", slow_disk)
    began = time.perf_counter()
    train(toy, max_epochs=30)
    took = time.perf_counter() - began
    assert len(written) <= 2 + 0.01 * took / 0.05 + 1, "start, end, and a hundredth of the time between"


def test_no_step_waits_for_it() -> None:
    assert all(getattr(RunSummary, name) is getattr(Callback, name) for name in STEP_HOOKS)


def test_a_stopped_run_says_how_far_it_came(toy: Any) -> None:
    def fail() -> None:
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        train(toy, AtStep(6, fail), max_epochs=3)
    assert (read().epochs, read().optimizer_steps) == (1, 6)


def test_a_full_disk_does_not_stop_training(
    toy: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logging.getLogger("leyden"), "propagate", True)
    monkeypatch.setattr("leyden.callbacks.summary.write_text", full)
    assert train(toy).global_step == 8
    assert "summary.json could not be written: No space left on device" in caplog.text


def test_nothing_is_written_where_there_is_no_run(toy: Any) -> None:
    trainer = toy.trainer(max_epochs=1, callbacks=[RunSummary()])
    trainer.fit(toy.Task(), toy.Data(toy.points(17)))
    assert list(Path().rglob("summary.json")) == []


def test_the_batch_size_counts_all_processes_and_accumulated_batches(toy: Any) -> None:
    trainer: Any = SimpleNamespace(
        train_dataloader=SimpleNamespace(batch_size=8),
        world_size=4,
        accumulate_grad_batches=2,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    module: Any = nn.Linear(3, 2, bias=False)
    summary = describe(trainer, module)
    assert (summary.effective_batch_size, summary.processes, summary.trainable_parameters) == (64, 4, 6)
    assert (summary.monitor, summary.better) == (None, {})
    trainer.train_dataloader = {"a": 1}
    assert describe(trainer, module).effective_batch_size is None


def test_seconds_add_up_over_resumes(fit_options: list[str]) -> None:
    path = Path("runs/lenet/1/summary.json")
    assert main(["fit", *fit_options]) == 0
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | {"seconds": 1000.0}))

    assert main(["fit", *fit_options, "--resume=auto", "--trainer.max_epochs=2"]) == 0
    after = json.loads(path.read_text())
    assert 1000 < after["seconds"] < 1060
    assert (before["epochs"], after["epochs"]) == (1, 2)
    assert (before["optimizer_steps"], after["optimizer_steps"]) == (5, 10)


@pytest.mark.parametrize("content", [None, "{"])
def test_where_the_earlier_seconds_are_lost_none_are_claimed(
    trained_run: Path, fit_options: list[str], content: Any
) -> None:
    path = trained_run / "summary.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    same = ["--model.net.activation=relu", "--model.net.batch_norm=true", "--experiment=trained"]
    assert main(["fit", *fit_options, *same, "--resume=auto", "--trainer.max_epochs=4"]) == 0
    after = json.loads(path.read_text())
    assert (after["seconds"], after["epochs"], after["monitor"]) == (None, 4, "val/accuracy")
