"""Saving within epochs, signals of a cluster, and disks that are full; several processes are in test_processes.py."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden import signals
from leyden.callbacks import graceful_stop
from leyden.main import main
from leyden.runs import read_checkpoint

LAST = Path("runs/lenet/1/checkpoints/last.ckpt")
EPOCH = 5  # batches

WATCHING = """
import os, signal
from pathlib import Path
from lightning.pytorch import Callback

class Watching(Callback):
    '''Writes down when last.ckpt changes, and at a step raises or sends this process a signal.'''

    def __init__(self, step: int = -1, name: str = "") -> None:
        self.step = step
        self.name = name
        self.seen = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        last = Path("runs/lenet/1/checkpoints/last.ckpt")
        found = last.stat().st_mtime_ns if last.exists() else None
        if found != self.seen:
            self.seen = found
            with open("saved.txt", "a") as file:
                print(trainer.global_step, file=file)
        if trainer.global_step == self.step:
            self.step = -1
            if not self.name:
                raise RuntimeError("the power is gone")
            os.kill(os.getpid(), getattr(signal, self.name))
"""


@pytest.fixture
def watched(fit_options: list[str]) -> Any:
    """`fit` with a callback that watches; the steps before which last.ckpt was written."""
    Path("watching.py").write_text(WATCHING)

    def fit(*options: str, status: int = 0, **arguments: Any) -> list[int]:
        own = ["--trainer.callbacks=watching.Watching"]
        own += [f"--trainer.callbacks.{name}={value}" for name, value in arguments.items()]
        assert main(["fit", *fit_options, *own, "--trainer.max_epochs=2", *options]) == status
        saved = Path("saved.txt")
        return [int(line) for line in saved.read_text().split()] if saved.exists() else []

    return fit


@pytest.mark.parametrize(
    ("every", "expected"), [("2", [2, 4, 5, 7, 9]), ("3", [3, 5, 8]), ("5", [5]), ("100", [5]), ("null", [5])]
)
def test_a_run_is_saved_every_so_many_steps_of_an_epoch_and_at_its_end(
    watched: Any, every: str, expected: list[int]
) -> None:
    assert watched(f"--save_every={every}") == expected
    assert read_checkpoint(LAST)["global_step"] == 2 * EPOCH
    assert {path.name for path in LAST.parent.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_run_is_saved_every_so_many_seconds(watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(graceful_stop.time, "monotonic", lambda: next(hours))
    assert watched("--save_every=1h") == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_what_was_not_saved_is_trained_again(watched: Any, fit_options: list[str]) -> None:
    with pytest.raises(RuntimeError, match="the power is gone"):
        watched("--save_every=2", step=4)
    assert read_checkpoint(LAST)["global_step"] == 4
    assert read_checkpoint(LAST.with_name("previous.ckpt"))["global_step"] == 2
    LAST.write_bytes(LAST.read_bytes()[:1000])  # as a machine that fails may leave it
    watched("--resume=auto")
    assert read_checkpoint(LAST)["global_step"] == 2 * EPOCH
    assert main(["fit", *fit_options, "--trainer.max_epochs=2", "--experiment=straight"]) == 0
    straight = read_checkpoint(Path("runs/straight/1/checkpoints/last.ckpt"))["state_dict"]
    assert all(torch.equal(value, straight[name]) for name, value in read_checkpoint(LAST)["state_dict"].items())


@pytest.mark.parametrize("every", ["0", "0m", "-1", "5x", "soon", "1.5m"])
def test_other_intervals_are_refused(fit_options: list[str], every: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", *fit_options, f"--save_every={every}"]) == 2
    assert f"save_every is {every!r}; it must be a number of optimizer steps (500), a time" in capsys.readouterr().err


def test_training_goes_on_without_a_checkpoint_that_the_disk_does_not_take(
    watched: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save, calls = torch.save, []

    def full(*arguments: Any, **options: Any) -> None:
        if LAST.exists() and len(calls) < 9:
            calls.extend(range(9))
            raise OSError(28, "No space left on device")
        save(*arguments, **options)

    monkeypatch.setattr(torch, "save", full)
    assert watched("--save_every=1")[:4] == [1, 3, 4, 5]
    said = capsys.readouterr().out
    assert f"training goes on: the checkpoint {LAST} cannot be written: No space left on device." in said
    assert not list(LAST.parent.glob(".*")), "nothing half-written is left"


# ---- Slurm


def scontrol(text: str) -> None:
    """A command of this name, in front of all others."""
    Path("bin").mkdir()
    file = Path("bin/scontrol")
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def _slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.delenv("SLURM_NTASKS", raising=False)  # the tests themselves may run in Slurm


@pytest.mark.usefixtures("_slurm")
@pytest.mark.parametrize("array", [False, True])
def test_slurms_signal_puts_the_job_back_into_the_queue(
    watched: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, array: bool
) -> None:
    job = "75_3" if array else "77"
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "75")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    scontrol("cp runs/lenet/1/checkpoints/last.ckpt saved.ckpt; echo $@ > asked.txt")
    watched(step=2, name="SIGUSR1", status=130)
    assert Path("asked.txt").read_text() == f"requeue {job}\n"
    assert read_checkpoint(Path("saved.ckpt"))["global_step"] == 3, "it is saved before the job may be ended"
    expected = f"stopped by SIGUSR1 after training step 3. Everything is saved in {LAST}; Slurm starts job {job} again."
    assert capsys.readouterr().err.strip() == expected


@pytest.mark.usefixtures("_slurm")
def test_a_job_that_cannot_be_put_back_says_so(watched: Any, capsys: pytest.CaptureFixture[str]) -> None:
    scontrol("echo Access/permission denied >&2; exit 1")
    watched(step=2, name="SIGUSR1", status=130)
    said = capsys.readouterr().err
    assert "but scontrol requeue 77 failed (Access/permission denied): submit it again, with --resume auto." in said


@pytest.mark.usefixtures("_slurm")
def test_other_signals_leave_the_queue_alone(watched: Any) -> None:
    scontrol("touch asked.txt")
    watched(step=2, name="SIGTERM", status=130)
    assert not Path("asked.txt").exists()


EARLY = """
import os, signal
from lightning.pytorch import Callback

class Early(Callback):
    def setup(self, trainer, pl_module, stage):
        os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_before_training_is_not_lost(fit_options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("early.py").write_text(EARLY)
    assert main(["fit", *fit_options, "--trainer.callbacks=early.Early"]) == 130
    told = "".join(capsys.readouterr())
    assert "stopped by SIGUSR1 after training step 0. Nothing was saved." in told
    assert "queue" not in told, "no Slurm runs this"
    assert signals.noted() is None
