"""Several processes: each has random numbers of its own, and a run says what its batches add up to."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from leyden.callbacks import Report
from leyden.callbacks.processes import Processes
from leyden.main import main


class Draws(Callback):
    """Writes down what each process draws in its first training batch, and its weights before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        path = self.folder / f"{trainer.world_size}_{trainer.global_rank}.json"
        if not path.exists():
            weights = [parameter.tolist() for parameter in pl_module.parameters()]
            path.write_text(json.dumps({"drawn": torch.rand(4).tolist(), "weights": weights}))


def first_draws(toy: Any, folder: Path, processes: int, *callbacks: Callback) -> list[Any]:
    folder.mkdir()
    torch.manual_seed(3)
    several = {"devices": processes, "strategy": "ddp_fork"} if processes > 1 else {}
    trainer = toy.trainer(max_epochs=1, callbacks=[*callbacks, Draws(folder)], **several)
    trainer.fit(toy.Task(), toy.Data(toy.points(17), batch_size=3))
    return [json.loads((folder / f"{processes}_{rank}.json").read_text()) for rank in range(processes)]


def test_random_numbers_differ_between_processes_and_come_again(toy: Any, tmp_path: Path) -> None:
    found = first_draws(toy, tmp_path / "first", 2, Processes())
    assert found[0]["drawn"] != found[1]["drawn"]
    assert found[0]["weights"] == found[1]["weights"]
    assert first_draws(toy, tmp_path / "again", 2, Processes()) == found


def test_one_process_draws_as_without_the_callback(toy: Any, tmp_path: Path) -> None:
    assert first_draws(toy, tmp_path / "with", 1, Processes()) == first_draws(toy, tmp_path / "without", 1)


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ({}, None),
        ({"accumulate_grad_batches": 2}, "effective batch size 6: 3 batch_size x 2 accumulate_grad_batches"),
    ],
)
def test_what_an_optimizer_step_is_made_of(
    toy: Any, trainer: dict[str, int], line: str | None, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(logging.getLogger("leyden"), "propagate", True)
    caplog.set_level(logging.INFO, logger="leyden")
    toy.trainer(max_epochs=1, callbacks=[Report(None)], **trainer).fit(
        toy.Task(), toy.Data(toy.points(17), batch_size=3)
    )
    found = {each.getMessage() for each in caplog.records if "effective" in each.getMessage()}
    assert found == (set() if line is None else {line})


def test_batch_norm_cannot_be_synchronised_on_the_cpu(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    words = "fit --model Regressor --model.net MLP --data SyntheticRegression --trainer.accelerator cpu"
    several = "--trainer.devices 2 --trainer.strategy ddp --trainer.sync_batchnorm true"
    assert main([*words.split(), *several.split()]) == 2
    assert "SyncBatchNorm works on GPUs only" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "variables", "said"),
    [
        (
            ["--trainer.devices=99", "--trainer.strategy=ddp"],
            {},
            "devices is 99, which on the CPU are as many processes",
        ),
        (["--trainer.num_nodes=2"], {}, "nothing starts the other machines"),
        (["--trainer.num_nodes=2"], {"MASTER_ADDR": "h1", "MASTER_PORT": "29500"}, "(NODE_RANK missing here)"),
        (["--trainer.devices=2"], {"MASTER_ADDR": "no-such-host.invalid"}, "knows no such host"),
        (["--trainer.devices=gpu"], {}, "`devices` selected with `CPUAccelerator` should be an int > 0"),
    ],
)
def test_processes_that_would_never_meet_are_refused_before_they_start(
    fit_options: list[str], options: list[str], variables: dict[str, str], said: str, capsys: Any, monkeypatch: Any
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["fit", *fit_options, *options]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
    assert not Path("runs").exists()
