"""metrics.csv, read back with the csv module, and wandb and TensorBoard through the command line."""

import csv
import json
import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

from leyden import loggers
from leyden.errors import DataError
from leyden.loggers import MetricsCSV
from leyden.main import main

CSV = Path("metrics.csv")


def rows_on_disk() -> list[dict[str, str]]:
    with CSV.open(newline="") as file:
        return list(csv.DictReader(file))


def opened(steps_done: int = 0) -> MetricsCSV:
    metrics = MetricsCSV()
    metrics.open(CSV, steps_done)
    return metrics


def test_metrics_of_one_step_share_a_row() -> None:
    metrics = opened()
    metrics.log_metrics({"epoch": 0, "val/loss": 0.5}, step=4)
    metrics.log_metrics({"epoch": 0, "train/loss": 0.25, "lr": 1e-3}, step=4)
    metrics.log_metrics({"epoch": 1, "train/loss": 0.125}, step=9)
    metrics.save()
    assert rows_on_disk() == [
        {"epoch": "0", "step": "4", "val/loss": "0.5", "train/loss": "0.25", "lr": "0.001"},
        {"epoch": "1", "step": "9", "val/loss": "", "train/loss": "0.125", "lr": ""},
    ]


def test_a_new_metric_in_a_later_epoch_gets_its_column() -> None:
    metrics = opened()
    metrics.log_metrics({"epoch": 0, "a": 1.0}, step=0)
    metrics.save()
    metrics.log_metrics({"epoch": 1, "b": 2.0}, step=1)
    metrics.save()
    assert [(row["a"], row["b"]) for row in rows_on_disk()] == [("1.0", ""), ("", "2.0")]
    assert metrics.metrics() == ["a", "b"]


def test_series_are_points_over_epochs() -> None:
    metrics = opened()
    for epoch in range(3):
        metrics.log_metrics({"epoch": epoch, "val/loss": 1.0 / (epoch + 1)}, step=epoch * 5 + 4)
    metrics.log_metrics({"epoch": 2, "other": 7.0}, step=20)
    assert metrics.series("val/loss") == [(1.0, 1.0), (2.0, 0.5), (3.0, pytest.approx(1 / 3))]
    assert metrics.series("nothing") == []


def test_numbers_survive_the_file() -> None:
    metrics = opened()
    values = {"pi": math.pi, "small": 1e-30, "nan": math.nan, "inf": -math.inf, "whole": 3.0}
    metrics.log_metrics({"epoch": 0, **values}, step=2)
    metrics.finalize("success")

    again = opened(steps_done=3)

    for name, value in values.items():
        assert again.series(name) == [(1.0, pytest.approx(value, rel=0, abs=0, nan_ok=True))]


@pytest.mark.parametrize(("steps_done", "kept"), [(0, 0), (5, 1), (9, 1), (10, 2), (100, 3)])
def test_a_resumed_run_keeps_the_rows_up_to_its_checkpoint(steps_done: int, kept: int) -> None:
    """Epochs of 5 steps end at steps 4, 9, 14 (from 0): a checkpoint after 10 steps has seen two of them."""
    metrics = opened()
    for epoch in range(3):
        metrics.log_metrics({"epoch": epoch, "x": float(epoch)}, step=epoch * 5 + 4)
    metrics.save()

    assert [value for _, value in opened(steps_done).series("x")] == [0.0, 1.0, 2.0][:kept]


def test_a_resumed_run_does_not_go_on_behind_a_damaged_line() -> None:
    CSV.write_text("epoch,step,x\n0,4,1.0\n1,9\n")
    with pytest.raises(DataError, match=r"metrics\.csv line 3: it has fewer cells"):
        opened(steps_done=10)
    assert opened(steps_done=0).metrics() == [], "a run that starts afresh does not read it"


def test_nothing_is_written_without_a_place_or_news() -> None:
    metrics = MetricsCSV()
    metrics.log_metrics({"x": 1.0}, step=0)
    metrics.save()
    assert not CSV.exists()
    metrics.open(CSV, 0)
    metrics.save()
    written = CSV.stat().st_mtime_ns
    metrics.save()
    assert CSV.stat().st_mtime_ns == written


def test_an_error_that_ended_training_is_not_hidden_by_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    metrics = opened()
    metrics.log_metrics({"x": 1.0}, step=0)
    monkeypatch.setattr(Path, "open", full)
    metrics.finalize("failed")
    with pytest.raises(OSError, match="No space"):
        metrics.finalize("success")


@pytest.fixture
def run_metrics(fit_options: list[str]) -> Any:
    """Train with a tracker for two epochs and return the run's own record of its metrics."""

    def fit(*options: str) -> dict[str, list[float]]:
        assert main(["fit", *fit_options, "--trainer.max_epochs=2", "--trainer.log_every_n_steps=2", *options]) == 0
        metrics = MetricsCSV()
        metrics.open(Path("runs/lenet/1/metrics.csv"), 10**6)
        return {name: [value for _, value in metrics.series(name)] for name in metrics.metrics()}

    return fit


def test_tensorboard_gets_the_same_metrics_the_config_and_the_pictures(run_metrics: Any) -> None:
    own = run_metrics("--trainer.logger=TensorBoardLogger")

    [events] = Path("tensorboard").rglob("events.out.tfevents*")
    board = EventAccumulator(str(events)).Reload()
    assert {"train/loss", "train/loss_step", "val/loss", "val/accuracy", "val/f1", "lr"} <= set(own)
    for name, values in own.items():
        assert [event.value for event in board.Scalars(name)] == pytest.approx(values), name
    assert len(board.Images("samples")) == 2
    [config] = Path("tensorboard").rglob("hparams.yaml")
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["net"]["init_args"]["activation"] == "sigmoid"


def test_wandb_works_offline_and_gets_the_same(run_metrics: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    own = run_metrics("--trainer.logger=WandbLogger", "--trainer.logger.save_dir=tracked")
    wandb.finish()

    history: dict[str, list[Any]] = {}
    config: dict[str, Any] = {}
    for record in finished_records("tracked"):
        for item in record.history.item:
            history.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
        for item in record.config.update:
            config[item.key] = json.loads(item.value_json)
    for name, values in own.items():
        assert history[name] == pytest.approx(values), name
    assert any(name.startswith("samples") for name in history)
    assert config["model"]["init_args"]["net"]["init_args"]["activation"] == "sigmoid"


def test_a_resumed_run_goes_on_in_its_own_trackers(
    fit_options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(wandb, "login", lambda **_: False)  # what it says where nobody has logged in
    monkeypatch.setenv("WANDB_SILENT", "true")
    trackers = ["--trainer.logger=WandbLogger", "--trainer.logger+=TensorBoardLogger"]
    for epochs in (1, 2):
        assert main(["fit", *fit_options, *trackers, f"--trainer.max_epochs={epochs}", "--resume=auto"]) == 0
        wandb.finish()
    memory = json.loads(Path("runs/lenet/1/trackers.json").read_text())
    assert set(memory) == {"WandbLogger", "TensorBoardLogger"}
    offline = sorted(path.name for path in Path("wandb").glob("offline-run-*"))
    assert offline
    assert all(memory["WandbLogger"] in name for name in offline), "one run of wandb, in two pieces"
    [version] = {path.parent for path in Path("tensorboard").rglob("events.out.tfevents*")}
    board = EventAccumulator(str(version)).Reload()
    assert [event.step for event in board.Scalars("val/loss")] == [4, 9]


FAILING = """
from lightning.pytorch.loggers import CSVLogger

class Broken(CSVLogger):
    def __init__(self, save_dir: str, where: str):
        super().__init__(save_dir)
        self.where = where

    @property
    def experiment(self):
        if self.where == "experiment":
            raise ConnectionError("no server")
        return super().experiment

    def log_metrics(self, metrics, step=None):
        if self.where == "log_metrics":
            raise OSError(28, "No space left on device")
        super().log_metrics(metrics, step)

    def finalize(self, status):
        if self.where == "finalize":
            raise RuntimeError("never mind")
        super().finalize(status)
"""


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("experiment", "Broken failed (ConnectionError: no server); training goes on."),
        ("log_metrics", "Broken failed (OSError: [Errno 28] No space left on device); training goes on."),
        ("finalize", "Broken failed (RuntimeError: never mind); training goes on."),
    ],
)
def test_a_tracker_that_fails_does_not_stop_training(fit_options: list[str], where: str, said: str) -> None:
    Path("broken.py").write_text(FAILING)
    options = ["--trainer.logger=broken.Broken", "--trainer.logger.save_dir=x", f"--trainer.logger.where={where}"]
    with pytest.warns(UserWarning, match="Broken failed") as warned:
        assert main(["fit", *fit_options, *options, "--trainer.max_epochs=2"]) == 0
    assert [str(each.message) for each in warned if "Broken" in str(each.message)] == [said], "one warning is enough"
    assert "val/loss" in Path("runs/lenet/1/metrics.csv").read_text()


def test_a_tracker_that_takes_long_to_fail_is_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "SLOW_FAILURE", 0.01)

    class Unreachable(MetricsCSV):
        asked = 0

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            self.asked += 1
            time.sleep(0.02)
            raise TimeoutError("no answer")

    tracker: Any = loggers.guard(Unreachable(), waits=False)
    with pytest.warns(UserWarning, match=r"Unreachable failed \(TimeoutError: no answer\); it is asked no more"):
        tracker.log_metrics({})
    tracker.log_metrics({})
    assert tracker.asked == 1


def test_a_full_disk_does_not_lose_the_metrics_that_come_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    metrics = opened()
    metrics.log_metrics({"x": 1.0}, step=0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.warns(UserWarning, match="cannot be written .No space left on device.; training goes on"):
            metrics.save()
    metrics.log_metrics({"x": 2.0}, step=1)
    metrics.flush()
    assert [float(row["x"]) for row in csv.DictReader(CSV.open())] == [1.0, 2.0]


TEXTS = [
    *("--model=LanguageModel", "--model.net=GRU", "--model.net.hidden_size=8", "--model.length=3"),
    *("--data=TextFile", "--data.root=text.txt", "--data.num_steps=10", "--data.eval_rows=3"),
    *("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"),
]


def test_texts_that_are_predicted_after_an_epoch_are_a_table_in_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("text.txt").write_text("the grey house of the old merchant\n" * 60)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert main(["fit", *TEXTS, "--trainer.logger=WandbLogger", "--trainer.logger.save_dir=tracked"]) == 0
    wandb.finish()
    [table] = Path("tracked").rglob("*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["prompt", "continuation"]
    lines = Path("runs/gru/1/samples/epoch_001.jsonl").read_text().splitlines()
    assert content["data"] == [list(json.loads(line).values()) for line in lines]

    assert main(["fit", *TEXTS, "--trainer.logger=TensorBoardLogger"]) == 0
    [events] = Path("tensorboard").rglob("events.out.tfevents*")
    board = EventAccumulator(str(events)).Reload()
    [text] = board.Tensors("samples/text_summary")
    assert text.tensor_proto.string_val[0].decode().splitlines()[0] == "| prompt | continuation |"


def finished_records(folder: str) -> list[Record]:
    """All records of a run; wandb writes them in a process of its own."""
    [file] = Path(folder).rglob("*.wandb")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        records = list(wandb_records(file))
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{file} was not finished; it holds {len(records)} records")


def wandb_records(file: Path) -> Iterator[Record]:
    """What an offline run of wandb holds: a log as LevelDB writes it, behind a header of 7 bytes."""
    content = file.read_bytes()
    position, record = 7, b""
    while position + 7 <= len(content):
        left_in_block = 32768 - position % 32768
        if left_in_block < 7:
            position += left_in_block
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        if position + 7 + length > len(content):
            return
        record += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(record)
            record = b""
