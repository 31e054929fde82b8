"""MetricsCSV: every run's own record of its metrics, which the curves are drawn from. A default for TensorBoard."""

import importlib
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from leyden import history
from leyden.errors import UsageError
from leyden.folders import write_csv

SHORT_FILE = 200  # rows that are written at once
SAVE_SHARE = 0.01  # of the time goes into rewriting a longer file


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's, with a place to write to: the folder `tensorboard`, unless another is named.

    Args:
        save_dir: the folder.
        kwargs: the arguments of Lightning's logger.

    Raises:
        UsageError: tensorboard is not installed.
    """

    def __init__(self, save_dir: str = "tensorboard", **kwargs: Any) -> None:
        try:
            importlib.import_module("tensorboard")  # Lightning looks for it in the middle of training
        except ImportError as error:
            raise UsageError(
                "TensorBoardLogger needs the package tensorboard: pip install 'leyden[tensorboard]'"
            ) from error
        super().__init__(save_dir, **kwargs)


class MetricsCSV(Logger):
    """Writes metrics.csv: one row for each (epoch, step), a column for each metric.

    It goes on with the file of a resumed run, from which it drops the rows behind the checkpoint.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[history.Row] = []
        self.path: Path | None = None
        self._unsaved = False
        self._next_save = 0.0

    def open(self, path: Path, steps_done: int) -> None:
        """Write to `path` from now on, keeping the rows that are there up to optimizer step `steps_done`."""
        self.path = path
        if steps_done and path.is_file():
            self.rows = [row for row in history.read_rows(path) if row["step"] < steps_done]

    @property
    def name(self) -> str:
        """Lightning asks for it; the run's folder says more."""
        return ""

    @property
    def version(self) -> str:
        """Lightning asks for it; the run's folder says more."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """The run's folder."""
        return None if self.path is None else str(self.path.parent)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add metrics to the row of their epoch and step."""
        values: dict[str, Any] = dict(metrics)
        key = {"epoch": int(values.pop("epoch", 0)), "step": step or 0}
        if not self.rows or {name: self.rows[-1][name] for name in key} != key:
            self.rows.append({**key})
        self.rows[-1].update(values)
        self._unsaved = True

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The config is in config.yaml."""

    @rank_zero_only
    def save(self) -> None:
        """Rewrite the file. Lightning calls this after each `log_metrics`: a long file waits for its turn."""
        if time.monotonic() >= self._next_save:
            self._write()

    def _write(self) -> None:
        if self.path is None or not self._unsaved:
            return
        started = time.monotonic()
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        write_csv(self.path, [columns, *([row.get(name, "") for name in columns] for row in self.rows)])
        self._unsaved = False
        ended = time.monotonic()
        self._next_save = ended + (ended - started) / SAVE_SHARE if len(self.rows) > SHORT_FILE else ended

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Training has ended, in one way or another; an error that ended it must not be hidden by a second one."""
        with suppress(OSError) if status == "failed" else nullcontext():
            self._write()

    def series(self, metric: str) -> list[tuple[float, float]]:
        """(epoch, value) points of a metric; epoch 1 is the state after the first epoch."""
        return history.series(self.rows, metric)

    def metrics(self) -> list[str]:
        """The names of all metrics, in the order in which they came."""
        return history.metric_names(self.rows)
