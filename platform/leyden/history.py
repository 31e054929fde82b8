"""What a run's folder says of it: metrics.csv, config.yaml, summary.json, test/metrics.json. Without torch."""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import StringIO
from pathlib import Path
from typing import Any

from leyden.errors import DataError, UsageError, guess
from leyden.names import load_yaml

METRICS, CONFIG, SUMMARY, TEST_METRICS = "metrics.csv", "config.yaml", "summary.json", Path("test", "metrics.json")
DEFAULT_MONITOR = ("val/loss", "min")  # what picks the best epoch where nothing else is known
Row = dict[str, float]  # epoch and step, both counted from 0, and the metrics that were logged there
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Summary:
    """What a run says about itself in summary.json; None is what it does not know.

    task, network: class paths. trainable_parameters: numbers in the network that training changes. monitor, mode: the
    metric that picks the best checkpoint, and `min` or `max`. better: the same for every metric of which it is known,
    by its name without the stage. device: of one process. processes: how many train together. effective_batch_size:
    items in an optimizer step, over all processes and accumulated batches. seconds: spent in training and validation,
    over all resumes. optimizer_steps, epochs: done so far.
    """

    task: str | None = None
    network: str | None = None
    trainable_parameters: int | None = None
    monitor: str | None = None
    mode: str | None = None
    better: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    processes: int | None = None
    effective_batch_size: int | None = None
    seconds: float | None = None
    optimizer_steps: int | None = None
    epochs: int | None = None

    @classmethod
    def read(cls, path: Path) -> "Summary | None":
        """None where there is no file. Raises DataError for a damaged one."""
        if not path.is_file():
            return None
        content = _read_json(path)
        known = {each.name: content[each.name] for each in fields(cls) if content.get(each.name) is not None}
        for name, value in known.items():
            kind = _KINDS.get(name, int)
            if not isinstance(value, kind):
                raise DataError(f"{path} is damaged: {name} is {value!r}.")
        return cls(**known)


_KINDS: dict[str, type | tuple[type, ...]] = {"better": dict, "seconds": (int, float)}
_KINDS |= dict.fromkeys(("task", "network", "monitor", "mode", "device"), str)


@dataclass(frozen=True)
class History:
    """One run. test: the metrics of `test`, empty where it has not been run; summary: None for a run without one."""

    path: Path
    rows: list[Row]
    config: dict[str, Any]
    summary: Summary | None
    test: dict[str, float]

    @classmethod
    def read(cls, path: Path) -> "History":
        """Read a run's folder.

        Raises UsageError where no epoch is finished, DataError for a damaged file; the message names file and line.
        """
        rows = read_rows(path / METRICS) if (path / METRICS).is_file() else []
        test = _read_json(path / TEST_METRICS) if (path / TEST_METRICS).is_file() else {}
        found = cls(
            path,
            rows,
            _read_config(path / CONFIG),
            Summary.read(path / SUMMARY),
            {name: float(value) for name, value in test.items() if isinstance(value, int | float)},
        )
        if not found.metrics:
            raise UsageError(f"{path} has no finished epoch yet: there is nothing in {METRICS} to compare.")
        return found

    @property
    def metrics(self) -> list[str]:
        """The metrics of whole epochs, in the order in which they came."""
        return [name for name in metric_names(self.rows) if not name.endswith("_step") and "gradient_norm/" not in name]

    @property
    def epochs(self) -> int:
        """How many epochs have metrics."""
        return max(int(row["epoch"]) for row in self.rows if any(name in row for name in self.metrics)) + 1

    @property
    def monitor(self) -> tuple[str, str]:
        """The metric that picks the best epoch, and `min` or `max`."""
        known = self.summary
        return (known.monitor, known.mode) if known and known.monitor and known.mode else DEFAULT_MONITOR

    @property
    def best(self) -> Row | None:
        """Where the monitor was best, of equals the first, as in best.ckpt; None where it was never logged."""
        name, mode = self.monitor
        rows = [row for row in self.rows if not math.isnan(row.get(name, math.nan))]
        return (max if mode == "max" else min)(rows, key=lambda row: row[name], default=None)

    def at_best(self, metric: str) -> float | None:
        """A metric where the monitor was best; what is not logged just there, as it was at the end of that epoch."""
        best = self.best
        if best is None or metric in best:
            return None if best is None else best[metric]
        return _last_value([row for row in self.rows if row["epoch"] == best["epoch"]], metric)

    def at_last(self, metric: str) -> float | None:
        """A metric when it was logged last."""
        return _last_value(self.rows, metric)

    def mode(self, metric: str) -> str | None:
        """Whether a metric is better when small (`min`) or large (`max`); None where that is not known."""
        name = base_name(metric)
        stated = self.summary.better.get(name) if self.summary else None
        return stated or ("min" if name == "loss" or name.endswith("_loss") else None)


def _last_value(rows: Sequence[Row], metric: str) -> float | None:
    return next((row[metric] for row in reversed(rows) if metric in row), None)


def base_name(metric: str) -> str:
    """The name of a metric without its stage: `loss` of `val/loss`."""
    return metric.rpartition("/")[2]


def metric_names(rows: Iterable[Row]) -> list[str]:
    """The names of all metrics, in the order in which they came."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name not in ("epoch", "step")]


def series(rows: Iterable[Row], metric: str) -> Points:
    """(epoch, value) points of a metric; epoch 1 is the state after the first epoch."""
    return [(float(row["epoch"]) + 1, float(row[metric])) for row in rows if metric in row]


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.csv, each with what was logged there. Raises DataError that names file and line."""
    try:
        table = csv.DictReader(StringIO(_text(path), newline=""), strict=True)
        missing = {"epoch", "step"} - set(table.fieldnames or [])
        if missing:
            raise DataError(f"{path} line 1: the column {min(missing)} is missing; it is no {METRICS} of a run.")
        return [_row(cells, f"{path} line {table.line_num}") for cells in table]
    except csv.Error as error:
        raise DataError(f"{path} line {table.line_num + 1}: {error}. {_REPAIR}") from error  # behind the last good one


_REPAIR = "Repair or delete the line; the other lines stay usable."


def _row(cells: Mapping[str | None, Any], where: str) -> Row:
    if None in cells or None in cells.values():
        raise DataError(f"{where}: it has {'more' if None in cells else 'fewer'} cells than the head line. {_REPAIR}")
    row = {str(name): _number(text, f"{where}, column {name}") for name, text in cells.items() if text != ""}
    for name in ("epoch", "step"):
        if not isinstance(row.get(name), int):
            raise DataError(f"{where}: {name} is {cells[name]!r}, not a whole number. {_REPAIR}")
    return row


def _number(text: str, where: str) -> float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError as error:
        raise DataError(f"{where}: {text!r} is not a number. {_REPAIR}") from error


def _read_config(path: Path) -> dict[str, Any]:
    config = load_yaml(_text(path), str(path)) if path.is_file() else {}
    if not isinstance(config, dict):
        raise DataError(f"{path} is damaged: it is not a mapping of options but {type(config).__name__}.")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} line {error.lineno} is damaged: {error.msg}. Repair or remove it.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it is not a mapping but {type(content).__name__}.")
    return content


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} line {line} is not UTF-8 text.") from error


def find_run(target: str) -> Path:
    """The run folder that the user means: a run, or an experiment's newest run. Raises UsageError for none."""
    path = Path(target)
    if _is_run(path):
        return path
    if not path.exists():
        known = [str(each) for pattern in ("runs/*", "runs/*/*") for each in Path().glob(pattern)]
        raise UsageError(f"there is no run {target!r}.{guess(target, known)} A run is a folder such as runs/lenet/1.")
    if path.is_file():
        raise UsageError(f"{target!r} is a file; name the run's folder, such as runs/lenet/1.")
    # a start that failed leaves a folder without metrics
    newest = max(_numbered_runs(path), key=lambda run: ((run / METRICS).is_file(), int(run.name)), default=None)
    if newest is None:
        raise UsageError(
            f"{target!r} is no run: {CONFIG} and {METRICS} are missing, and it holds no numbered runs.{_inside(path)}"
        )
    return newest


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (CONFIG, METRICS))


def _numbered_runs(path: Path) -> Iterator[Path]:
    yield from (child for child in path.iterdir() if child.name.isdecimal() and _is_run(child))


def _inside(path: Path) -> str:
    """A hint for the folder of all experiments."""
    experiments = sorted(str(child) for child in path.iterdir() if child.is_dir() and any(_numbered_runs(child)))
    return f" Did you mean {' '.join(experiments[:5])}?" if experiments else ""


def labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, of two parts (`lenet/1`) at least."""
    parts = [path.absolute().parts for path in paths]
    return [_label(own, [other for other in parts if other != own]) for own in parts]


def _label(own: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    lengths = range(2, len(own))
    length = next((n for n in lengths if all(other[-n:] != own[-n:] for other in others)), len(own))
    return str(Path(*own[-length:]))
