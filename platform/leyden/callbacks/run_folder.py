"""RunFolder: gives a run its folder, its config, its metrics file and its log."""

import logging
import socket
import time
import uuid
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from leyden.agreement import gathered
from leyden.errors import StoppedError, UsageError
from leyden.folders import write_text
from leyden.loggers import MetricsCSV, join_run
from leyden.runs import Run
from leyden.task import SECTION

logger = logging.getLogger("leyden")
SHARED_SECONDS = 20.0  # for a network file system to show what another node has written


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Whatever the log cannot hold, such as a full disk, is reported by what matters more."""


def _require_shared(folder: Path, trainer: Trainer) -> None:
    """Raises UsageError, in all processes, where one does not see what the first writes into the run's folder."""
    mark: str = trainer.strategy.broadcast(uuid.uuid4().hex)
    file = folder / f".seen-by-all.{mark}"
    if trainer.is_global_zero:
        write_text(file, mark)
    trainer.strategy.barrier("written")
    deadline = time.monotonic() + SHARED_SECONDS
    while not (seen := file.is_file()) and time.monotonic() < deadline:
        time.sleep(0.1)
    blind = [host for host, sees in gathered((socket.gethostname(), seen)) if not sees]
    if trainer.is_global_zero:
        file.unlink(missing_ok=True)
    if blind:
        raise UsageError(
            f"{folder.resolve()}, where process 0 keeps the run, is not seen on {', '.join(sorted(set(blind)))}: the "
            "folder of --runs must be on a file system that all nodes share, and the command be started in one place."
        )


class RunFolder(Callback):
    """Rank 0 chooses the folder, the other processes are told.

    Args:
        experiment: the folder in which a numbered folder is made.
        config: the config as YAML, written beside the results and into every checkpoint.
        run: the run to go on with, instead of a new one.
        steps_done: optimizer steps that were done before.
    """

    def __init__(self, experiment: Path, config: str, run: Run | None = None, steps_done: int = 0) -> None:
        self.experiment = experiment
        self.config = config
        self.run = run
        self.steps_done = steps_done
        self._log_file: logging.Handler | None = None

    @staticmethod
    def of(trainer: Trainer) -> Run | None:
        """The run that a trainer writes into; None where it keeps none."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        return next((callback.run for callback in callbacks if isinstance(callback, RunFolder)), None)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's hook: the first moment at which the processes can talk to each other."""
        if self.run is None and trainer.is_global_zero:
            self.run = Run.create(self.experiment)
        self.run = trainer.strategy.broadcast(self.run)
        assert self.run is not None
        if trainer.world_size > 1:
            _require_shared(self.run.path, trainer)
        if not trainer.is_global_zero:
            return
        self._log_file = _LogFile(self.run.path / "log.txt", encoding="utf-8")
        self._log_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(self._log_file)
        if not (self.run.path / "config.yaml").exists():
            write_text(self.run.path / "config.yaml", self.config)
        for metrics in trainer.loggers:
            if isinstance(metrics, MetricsCSV):
                metrics.open(self.run.path / "metrics.csv", self.steps_done)
        join_run(trainer.loggers, self.run.path / "trackers.json")
        logger.info("run folder: %s", self.run.path)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: a resumed run's config is replaced only when its checkpoint has been accepted."""
        if self.run is None or not trainer.is_global_zero:
            return
        write_text(self.run.path / "config.yaml", self.config)
        for tracker in trainer.loggers:
            tracker.log_hyperparams(yaml.safe_load(self.config))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's hook; not called after an exception."""
        self._close_log()
        if self.run is not None and trainer.is_global_zero:
            self.run.previous.unlink(missing_ok=True)

    def _close_log(self) -> None:
        if self._log_file is not None:
            logger.removeHandler(self._log_file)
            self._log_file.close()
            self._log_file = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning's hook: the log tells the whole story, the terminal only the message."""
        if self._log_file is not None:
            cause = (type(exception), exception, exception.__traceback__)
            wanted = isinstance(exception, StoppedError)
            record = {"msg": str(exception)} if wanted else {"msg": "stopped", "exc_info": cause}
            self._log_file.handle(logging.makeLogRecord(record))
        self._close_log()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: with its config a checkpoint is all that `test` and `predict` need."""
        checkpoint.setdefault(SECTION, {})["config"] = self.config
        for metrics in trainer.loggers:
            if isinstance(metrics, MetricsCSV):
                metrics.flush()
