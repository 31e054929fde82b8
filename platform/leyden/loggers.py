"""MetricsCSV: every run's own record of its metrics, which the curves are drawn from. And others' trackers."""

import functools
import importlib
import json
import os
import time
import uuid
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from leyden import history
from leyden.errors import UsageError
from leyden.folders import write_csv, write_text

SHORT_FILE = 200  # rows that are written at once
GUARDED = ("log_metrics", "log_hyperparams", "log_graph", "log_image", "log_table", "save", "finalize")
SLOW_FAILURE = 5.0  # seconds
RETRY_SECONDS = 10.0  # after which a file is tried again that could not be written
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

    def join(self, state: str | None) -> str:
        """Go on with the version that was written before, if any; what is to be remembered for the next time."""
        version = state or self.version
        self._version = version if isinstance(version, str) else f"version_{version}"
        return self._version


class WandbLogger(loggers.WandbLogger):
    """Lightning's; offline where nobody has logged in. A run that is resumed goes on in its own run of wandb.

    Args:
        kwargs: the arguments of Lightning's logger.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self._wandb_init.get("anonymous") is None:
            self._wandb_init.pop("anonymous", None)  # wandb warns of an option that it no longer has
        chosen = os.environ.get("WANDB_MODE") or kwargs.get("mode") or kwargs.get("offline")
        if not chosen and getattr(rank_zero_only, "rank", 0) == 0 and not _has_wandb_key():
            self._wandb_init["mode"] = "offline"
            rank_zero_info("wandb: nobody has logged in here; the run is kept offline (`wandb sync` sends it later)")

    def join(self, state: str | None) -> str:
        """Go on in the run with this id, if there is one; what is to be remembered for the next time."""
        own = state or self._wandb_init.get("id") or uuid.uuid4().hex[:8]
        self._id = own
        self._wandb_init.update(id=own, resume="allow")
        return str(own)


def _has_wandb_key() -> bool:
    import wandb

    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return bool(wandb.login(prompt=False))
    except Exception:  # whatever its server or its network says: then there is nothing to send to
        return False


def join_run(trackers: Sequence[Logger], file: Path) -> None:
    """Let trackers begin, or go on where they were before; `file` is the run's memory of where that is."""
    known: dict[str, str] = {}
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text(encoding="utf-8"))
    for tracker in trackers:
        if isinstance(tracker, TensorBoardLogger | WandbLogger):
            known[type(tracker).__name__] = tracker.join(known.get(type(tracker).__name__))
        if isinstance(guarded := getattr(tracker, "guarded", None), Guard):
            guarded.waits = False
    if known:
        write_text(file, json.dumps(known, indent=2) + "\n")


def guard(tracker: Logger, waits: bool) -> Logger:
    """The same tracker, which no longer raises: training goes on when a disk is full or a network gone.

    waits: it begins only when it has joined a run (`join_run`); Lightning asks for its experiment before that.
    """
    guarded = Guard(tracker, waits)
    for name in GUARDED:
        if hasattr(tracker, name):
            setattr(tracker, name, guarded.method(getattr(tracker, name)))
    own: Any = type(tracker)
    members = {"__module__": own.__module__, "experiment": property(guarded.experiment), "guarded": guarded}
    tracker.__class__ = type(own.__name__, (own,), members)
    return tracker


class Guard:
    """Catches what a tracker raises, and warns of the first.

    One that fails for longer than SLOW_FAILURE seconds, as where a server does not answer, is asked no more.
    """

    def __init__(self, tracker: Logger, waits: bool) -> None:
        self.kind: Any = type(tracker)
        self.waits = waits
        self.has_warned = False
        self.is_off = False

    def experiment(self, tracker: Logger) -> Any:
        """The tracker's; None while it waits, and where it fails."""
        return None if self.waits else self._attempt(self.kind.experiment.__get__, tracker)

    def method(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A method of the tracker, guarded."""
        return functools.partial(self._attempt, call)

    def _attempt(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.is_off:
            return None
        started = time.monotonic()
        try:
            return call(*args, **kwargs)
        except Exception as error:  # a tracker may stumble over anything
            self.is_off = time.monotonic() - started > SLOW_FAILURE
            if self.is_off or not self.has_warned:
                going_on = "it is asked no more" if self.is_off else "training goes on"
                rank_zero_warn(f"{self.kind.__name__} failed ({type(error).__name__}: {error}); {going_on}.")
            self.has_warned = True


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
        if time.monotonic() < self._next_save:
            return
        try:
            self._write()
        except OSError as error:
            self._next_save = time.monotonic() + RETRY_SECONDS
            rank_zero_warn(f"{self.path} cannot be written ({error.strerror}); training goes on, it is tried again.")

    @rank_zero_only
    def flush(self) -> None:
        """Rewrite the file now, if there is anything new: what a checkpoint has seen must not be lost without it."""
        with suppress(OSError):
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
