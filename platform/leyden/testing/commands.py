"""Runs leyden's commands on fabricated data, in this process or in several, and reads what they leave behind."""

import contextlib
import csv
import io
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from leyden.main import main
from leyden.plugins import cause, path_of
from leyden.runs import Run
from leyden.task import Task
from leyden.testing.data import Fabricated
from leyden.testing.rules import BrokenRule, require

SECONDS = 120  # after which processes that wait for each other are ended
SHOWN = 3000  # characters of what a failed command said
ON_CPU = ("--trainer.accelerator", "cpu")
SCRIPT = """import json, pathlib
from leyden.main import main
for words in json.loads(pathlib.Path(__file__).with_suffix(".json").read_text()):
    if status := main(words):
        raise SystemExit(status)
"""
TaskClass = type[Task[Any]]


class Steady(Callback):
    """Training without chance and without statistics of a batch: dropout and batch norm do as in evaluation."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        for module in pl_module.modules():
            if isinstance(module, _BatchNorm | _DropoutNd | nn.RNNBase):
                module.eval()


@dataclass
class Bench(Fabricated):
    """A task, its data and a folder in which commands run."""

    task: TaskClass
    options: Sequence[str]
    has_failed: bool = False

    @cached_property
    def whole(self) -> Run:
        """A run of two epochs, which several rules look at; the first of them says why there is none."""
        require(not self.has_failed, "there is no trained run to look at", "The rule that broke first says why.")
        self.has_failed = True
        run = self.fit("whole", "--trainer.max_epochs", "2")
        self.has_failed = False
        return run

    @contextlib.contextmanager
    def hidden(self, *names: str) -> Iterator[None]:
        """These parts of the folder are elsewhere for a while, where no command finds them."""
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as elsewhere:
            there = [name for name in names if (self.folder / name).exists()]
            for name in there:
                (self.folder / name).rename(Path(elsewhere, name))
            try:
                yield
            finally:
                for name in there:
                    Path(elsewhere, name).rename(self.folder / name)

    def fit_words(self, experiment: str, *more: str) -> list[str]:
        """`fit` for one epoch of two steps, unless `more` says otherwise."""
        words = ["fit", "--model", path_of(self.task), "--data", path_of(self.data)]
        for name, value in self.arguments.items():
            words.append(f"--data.{name}={value if isinstance(value, str) else json.dumps(value)}")
        steps = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
        return [*words, *ON_CPU, *steps, *self.options, "--experiment", experiment, *more]

    def fit(self, *words: str) -> Run:
        """Train as the words say; a `fit` command or, first, the name of a new experiment."""
        words = words if words[0] == "fit" else tuple(self.fit_words(*words))
        self.run(*words)
        run = self.first_run(words[words.index("--experiment") + 1])
        require(run.last.is_file(), f"{self.task.__name__} leaves no {run.last}", "Nothing could be tested or resumed.")
        return run

    def first_run(self, experiment: str) -> Run:
        """The first run of an experiment."""
        return Run(self.folder / "runs" / experiment / "1")

    def evaluate(self, command: str, checkpoint: Path, *more: str) -> dict[str, float]:
        """The metrics of `test` or `validate`."""
        self.run(command, str(checkpoint), *ON_CPU, *more, "--out", command)
        return self.metrics(command)

    def run(self, *words: str) -> None:
        """Run a command in this process. AssertionError with what it said unless it succeeds."""
        said = io.StringIO()
        call = f"`leyden {shlex.join(words)}`"
        try:
            with (
                contextlib.chdir(self.folder),
                contextlib.redirect_stdout(said),
                contextlib.redirect_stderr(said),
                _restored(),
            ):
                status = main(words)
        except Exception as error:
            raise BrokenRule(
                f"{call} ends in {cause(error, self.task.__module__, self.data.__module__)}",
                f"It said:\n{said.getvalue()[-SHOWN:]}",
            ) from error
        require(status == 0, f"{call} gives status {status}", f"It said:\n{said.getvalue()[-SHOWN:]}")

    def launch(self, *commands: list[str], status: int = 0) -> None:
        """Run commands from a script, as `python cli.py` does. AssertionError if it hangs or ends otherwise."""
        script = self.folder / "script.py"
        script.write_text(SCRIPT, encoding="utf-8")
        script.with_suffix(".json").write_text(json.dumps(commands), encoding="utf-8")
        piped: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        here = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # what can be imported here
        words = [sys.executable, script.name]
        process = subprocess.Popen(words, cwd=self.folder, start_new_session=True, env=here, **piped)
        try:
            said, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            said, _ = process.communicate()
            said = f"{said}\n(ended after {SECONDS} s: does one process wait for another that has fewer batches?)"
        found = f"{self.task.__name__} in processes of its own gives status {process.returncode}, not {status}"
        require(process.returncode == status, found, f"It said:\n{said[-SHOWN:]}")

    def metrics(self, out: str) -> dict[str, float]:
        """What `test` or `validate` wrote into this folder."""
        found: dict[str, Any] = json.loads((self.folder / out / "metrics.json").read_text(encoding="utf-8"))
        return {name: value for name, value in found.items() if name != "checkpoint"}

    def records(self, out: str) -> list[dict[str, Any]]:
        """What `predict` wrote into this folder. AssertionError unless each input is there once, in order."""
        lines = (self.folder / out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        found = [record["input"] for record in records]
        why = "Each input must be there once, in the order of the command line."
        require(found == self.inputs, f"`predict` gives {found} for {self.inputs}", why)
        return records


def forked(processes: int) -> list[str]:
    """The options that make a command go on in so many copies of this process: none has to import anything."""
    return [*ON_CPU, "--trainer.devices", str(processes), "--trainer.strategy", "ddp_fork"]


def history(run: Run) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv."""
    with (run.path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """A command leaves environment, import path and log of its process as they were."""
    log = logging.getLogger("leyden")
    handlers, log.handlers = log.handlers, []
    try:
        with mock.patch.dict(os.environ), mock.patch.object(sys, "path", [*sys.path]):
            yield
    finally:
        log.handlers = handlers
