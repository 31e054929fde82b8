"""The platform's conformance kit on the three plugins, and what is true of this task alone."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from leyden.errors import DataError
from leyden.main import main
from leyden.testing import (
    check_compiled,
    check_data,
    check_documented,
    check_processes,
    check_task,
    check_trainable,
)
from torch import Tensor

from new_task.data import NewTaskData, read_wave
from new_task.network import NewTaskNet
from new_task.task import NewTask

CONFIG = Path(__file__).parents[1] / "new_task.yaml"
OPTIONS = ["--model.net", "NewTaskNet", "--model.net.channels", "4"]


def test_network() -> None:
    check_documented(NewTaskNet)
    signals = torch.randn(8, 256, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 4

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    log_4 = 1.39  # what guessing has
    check_trainable(lambda: NewTaskNet(4), [signals], loss, below=log_4 / 2)


def test_data(tmp_path: Path) -> None:
    check_data(NewTaskData, tmp_path)


def test_task(tmp_path: Path) -> None:
    check_task(NewTask, NewTaskData, tmp_path, OPTIONS)


def test_task_in_two_processes(tmp_path: Path) -> None:
    check_processes(NewTask, NewTaskData, tmp_path, OPTIONS)


def test_task_compiled(tmp_path: Path) -> None:
    check_compiled(NewTask, NewTaskData, tmp_path, OPTIONS)


def test_the_config_learns_to_tell_the_toy_signals_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(CONFIG), "--experiment", "toy"]) == 0
    assert main(["test", "runs/toy/1"]) == 0
    assert json.loads(Path("runs/toy/1/test/metrics.json").read_text())["test/accuracy"] > 0.9


def test_a_signal_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = Path(NewTaskData.fabricate_inputs(tmp_path)[0])
    sample_rate, samples = read_wave(path)
    assert sample_rate == 8000
    assert samples.numpy().astype("<i2").tobytes() == path.read_bytes()[44:]  # behind the header


def test_a_stereo_file_is_refused(tmp_path: Path) -> None:
    path = Path(NewTaskData.fabricate_inputs(tmp_path)[0])
    content = bytearray(path.read_bytes())
    content[22] = 2  # the header's number of channels
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path.name}: 2 channels"):
        read_wave(path)
