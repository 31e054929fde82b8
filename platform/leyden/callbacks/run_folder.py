"""RunFolder: gives a run its folder, its config, its metrics file and its log."""

import logging
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from leyden.folders import write_text
from leyden.loggers import MetricsCSV
from leyden.runs import Run
from leyden.task import SECTION

logger = logging.getLogger("leyden")


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Whatever the log cannot hold, such as a full disk, is reported by what matters more."""


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

    def _close_log(self) -> None:
        if self._log_file is not None:
            logger.removeHandler(self._log_file)
            self._log_file.close()
            self._log_file = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning's hook: the log tells the whole story, the terminal only the message."""
        if self._log_file is not None:
            cause = (type(exception), exception, exception.__traceback__)
            self._log_file.handle(logging.makeLogRecord({"msg": "stopped", "exc_info": cause}))
        self._close_log()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning's hook: with its config a checkpoint is all that `test` and `predict` need."""
        checkpoint.setdefault(SECTION, {})["config"] = self.config
