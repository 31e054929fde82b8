"""Pictures: the learning curves, predictions on a few validation items after every epoch, and the test's figures."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

from leyden import draw
from leyden.callbacks.checkpoints import Checkpoints
from leyden.callbacks.run_folder import RunFolder
from leyden.data import DataModule
from leyden.folders import write_text
from leyden.loggers import MetricsCSV
from leyden.rules import require_records
from leyden.task import Record, Task, without_tensors

logger = logging.getLogger("leyden")
CURVES_SHARE = 0.01  # of the training time goes into redrawing the curves; short epochs may pass undrawn


class Pictures(Callback):
    """Writes curves.png and samples/epoch_NNN.png in training, and the figures of a test into its folder.

    Args:
        samples: how many validation (or test) items are predicted and drawn; 0 draws none. Without it as many as the
            task's sheet has room for.
        test_folder: where `test` and `validate` write; None where only training is drawn.
    """

    def __init__(self, samples: int | None = None, test_folder: Path | None = None) -> None:
        self.samples = samples
        self.test_folder = test_folder
        self._drawing_seconds = self._training_seconds = self._epoch_started = 0.0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: the weights are still those that were validated, such as EMA's."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        if self.test_folder is not None:
            self._draw_samples(trainer, pl_module, "val", self.test_folder / "samples.png")
            return
        run = RunFolder.of(trainer)
        if run is not None:
            name = f"epoch_{trainer.current_epoch + 1:03d}"
            self._draw_samples(trainer, pl_module, "val", run.path / "samples" / f"{name}.png")
            _write_results(pl_module, run.path, finished=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: an epoch that is resumed in its middle has no start of its own."""
        self._epoch_started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: the metrics of the epoch before have reached the loggers."""
        started = time.perf_counter()
        if self._drawing_seconds <= CURVES_SHARE * self._training_seconds:
            self._draw_curves(trainer)
        self._epoch_started = time.perf_counter()
        self._drawing_seconds += self._epoch_started - started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        self._training_seconds += time.perf_counter() - self._epoch_started

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning's hook: a run that was stopped shows how far it came."""
        self._draw_curves(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        self._draw_curves(trainer)
        run = RunFolder.of(trainer)
        if run is not None and trainer.is_global_zero:
            _draw_results(pl_module, run.path)  # of the last validation
            _write_results(pl_module, run.path, finished=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        if self.test_folder is not None and trainer.is_global_zero:
            _draw_results(pl_module, self.test_folder)
            _write_results(pl_module, self.test_folder, finished=True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        if self.test_folder is None or not trainer.is_global_zero:
            return
        self._draw_samples(trainer, pl_module, "test", self.test_folder / "samples.png")
        _draw_results(pl_module, self.test_folder)
        _write_results(pl_module, self.test_folder, finished=True)

    def _draw_curves(self, trainer: Trainer) -> None:
        metrics = next((found for found in trainer.loggers if isinstance(found, MetricsCSV)), None)
        if metrics is None or metrics.path is None or not trainer.is_global_zero:
            return
        names = [name for name in metrics.metrics() if not name.endswith(("_step", "samples_per_second"))]
        series = {name: points for name in names if (points := metrics.series(name))}
        if not series:
            return
        best = _best_point(trainer, series)
        _attempt(draw.save, draw.curves(series, best), metrics.path.with_name("curves.png"))

    def _draw_samples(self, trainer: Trainer, pl_module: LightningModule, split: str, path: Path) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, Task) or not isinstance(data, DataModule):
            return
        rows, columns = pl_module.sample_sheet
        samples = rows * columns if self.samples is None else self.samples
        source: Any = data.splits[split]
        count = min(samples, len(source))
        indices = [place * len(source) // count for place in range(count)]  # neighbours may be much alike
        if not indices:
            return
        size = data.batch_size or len(indices)  # no more than the user knows to fit together
        batches = [source.__getitems__(indices[start : start + size]) for start in range(0, len(indices), size)]
        records = [record for batch in batches for record in _predict(trainer, pl_module, data, batch)]
        drawn = [draw_record(pl_module, source, index, record) for index, record in zip(indices, records, strict=True)]
        pictures = [picture for picture in drawn if picture is not None]
        if pictures:
            sheet = draw.grid(pictures, columns)
            _attempt(draw.save, sheet, path)
            _to_trackers(trainer, sheet)
        elif any(isinstance(value, str) for value in records[0].values()):
            texts = [without_tensors(record) for record in records]
            lines = [json.dumps(text, ensure_ascii=False) + "\n" for text in texts]
            _attempt(_write_samples, path.with_suffix(".jsonl"), "".join(lines))
            logger.info("sample: %s", lines[0].strip())
            _texts_to_trackers(trainer, texts)


def _write_samples(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def draw_record(task: Task[Any], source: Any, index: int, record: Record) -> Image.Image | None:
    """The picture of one prediction; None where the data set has no pictures or the task draws none."""
    if type(task).draw is Task.draw or not hasattr(source, "picture"):
        return None
    return task.draw(source.picture(index), record)


def _draw_results(task: LightningModule, folder: Path) -> None:
    if isinstance(task, Task):
        for name, figure in task.draw_results(task.results).items():
            _attempt(draw.save, figure, folder / f"{name}.png")


def _write_results(task: LightningModule, folder: Path, finished: bool) -> None:
    if isinstance(task, Task):
        _attempt(task.write_results, folder, finished)


def _predict(trainer: Trainer, task: Task[Any], data: DataModule[Any], batch: Any) -> list[Record]:
    was_training = task.training
    task.eval()
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        on_device = task.transfer_batch_to_device(batch, task.device, 0)
        records = task.predict(data.transform(on_device, training=False))
    task.train(was_training)
    require_records(type(task), records, len(batch[0]))
    return records


def _best_point(trainer: Trainer, series: dict[str, list[tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    checkpoints = Checkpoints.of(trainer)
    monitor = None if checkpoints is None else checkpoints.monitor
    if checkpoints is None or monitor not in series:
        return {}
    pick = max if checkpoints.mode == "max" else min
    epoch, value = pick(series[monitor], key=lambda point: point[1])
    return {monitor: (epoch, value)}


def _to_trackers(trainer: Trainer, sheet: Image.Image) -> None:
    for tracker in trainer.loggers:
        if isinstance(tracker, WandbLogger):
            tracker.log_image("samples", [sheet])
        elif isinstance(tracker, TensorBoardLogger):
            pixels = pil_to_tensor(sheet)
            _attempt(tracker.experiment.add_image, "samples", pixels, trainer.global_step)


def _texts_to_trackers(trainer: Trainer, records: list[Record]) -> None:
    """Predicted texts as a table."""
    columns = list(records[0])
    rows = [[_cell(record.get(column)) for column in columns] for record in records]
    for tracker in trainer.loggers:
        if isinstance(tracker, WandbLogger):
            _attempt(tracker.log_table, "samples", columns, rows)
        elif isinstance(tracker, TensorBoardLogger):
            lines = [columns, ["---"] * len(columns), *rows]
            table = "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)
            _attempt(tracker.experiment.add_text, "samples", table, trainer.global_step)


def _cell(value: Any) -> str:
    """A value in a table; of several texts each on its own."""
    return " / ".join(map(str, value)) if isinstance(value, list) else str(value)


def _escaped(cell: str) -> str:
    """A cell of a Markdown table."""
    return cell.replace("|", r"\|").replace("\n", " ")


def _attempt(action: Any, *arguments: Any) -> None:
    """A picture that cannot be drawn or written is no reason to lose the training."""
    try:
        action(*arguments)
    except Exception as error:  # drawing stumbles over anything that data or a plugin may hold
        logger.warning("a picture could not be made: %s: %s", type(error).__name__, error)
