"""Predictions: writes what `predict` found, in the order of the input, each input exactly once."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from matplotlib.figure import Figure
from PIL import Image

from leyden import draw
from leyden.callbacks.pictures import draw_record
from leyden.data import DataModule
from leyden.errors import UsageError
from leyden.items import length, written
from leyden.rules import require_records
from leyden.task import Record, Task, without_tensors

PICTURE = re.compile(r"\d{5,}_.*\.png", re.DOTALL)
TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # a file's name need not be UTF-8
JSONL, TENSORS = "predictions.jsonl", "predictions.pt"


def _pictures(records: Sequence[Record]) -> set[str]:
    """The pictures that are named in records, as a prediction made them."""
    named = (value for each in records for key, value in each.items() if key != "input" and isinstance(value, str))
    return {Path(value).name for value in named if PICTURE.fullmatch(Path(value).name)}


class Predictions(BasePredictionWriter):
    """One line of predictions.jsonl and, where the task draws, pictures for each input.

    What the predict_step of a plain LightningModule gives is written item by item as well, if it can be divided into
    items and these are small; else predictions.pt holds it batch by batch: a list of dicts with the batch's `index`es
    and its `prediction`.

    Each process writes its share beside the result; rank 0 puts the shares together. An earlier result is replaced only
    when all is done.

    Args:
        folder: where the results go.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("batch")
        self.folder = folder
        self.records: list[Record] = []
        self.batches: list[dict[str, Any]] = []
        self._indices_before: Any = None
        self._counted = 0

    @property
    def _shares(self) -> Path:
        return self.folder / ".shares"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lightning's hook."""
        if trainer.is_global_zero:
            shutil.rmtree(self._shares, ignore_errors=True)
            self._shares.mkdir(parents=True)
        trainer.strategy.barrier("predictions folder")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Lightning's hook."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        source: Any = data.splits["predict"] if isinstance(data, DataModule) else None
        indices = self._indices(trainer, batch_indices, prediction)
        lines: list[Record] | None
        if isinstance(pl_module, Task):
            require_records(type(pl_module), prediction, len(indices))
            lines = [self._entry(pl_module, source, *pair) for pair in zip(indices, prediction, strict=True)]
        else:
            lines = _plain_entries(source, indices, prediction)
        several = isinstance(trainer.predict_dataloaders, list | tuple) and len(trainer.predict_dataloaders) > 1
        place = {"dataloader": dataloader_idx} if several else {}
        if lines is None:
            whole = {**place, "index": list(indices), "prediction": move_data_to_device(prediction, "cpu")}
            torch.save(whole, self._shares / f"{trainer.global_rank}_{dataloader_idx}_{batch_idx}.pt")
            return
        with (self._shares / f"{trainer.global_rank}.jsonl").open("a", **TEXT) as file:
            file.writelines(json.dumps({**place, **entry}, ensure_ascii=False) + "\n" for entry in lines)

    def _indices(self, trainer: Trainer, found: Sequence[int] | None, prediction: Any) -> Sequence[int]:
        """Which items a batch holds. Lightning knows it of batch samplers; it shows those before where it does not."""
        if found and found is not self._indices_before:
            self._indices_before = found
            return found
        if trainer.world_size > 1:
            raise UsageError(
                f"what the predict_dataloader gives cannot be divided among {trainer.world_size} processes, since it "
                "has no batch sampler. Predict in one: --trainer.devices 1."
            )
        start = self._counted
        self._counted += length(prediction)
        return range(start, self._counted)

    def _entry(self, task: Task[Any], source: Any, index: int, record: Record) -> Record:
        """The line of one item; its pictures are written on the way."""
        if source is None:
            return {"index": index, **without_tensors(record)}
        names = self._save_pictures(task, source, index, record)
        return {"index": index, "input": source.inputs[index], **without_tensors(record), **names}

    def _save_pictures(self, task: Task[Any], source: Any, index: int, record: Record) -> dict[str, str]:
        """Write the pictures of one prediction; their names in the folder, by what they are."""
        found = _drawn(task, source, index, record)
        for file, drawn in found.values():
            draw.save(drawn, self.folder / file)
        return {kind: file for kind, (file, _) in found.items()}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lightning's hook: nothing half-written stays."""
        if trainer.is_global_zero:
            shutil.rmtree(self._shares, ignore_errors=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        trainer.strategy.barrier("predictions written")
        if not trainer.is_global_zero:
            return
        texts = [share.read_text(**TEXT) for share in self._shares.glob("*.jsonl")]
        self.records = sorted((json.loads(line) for text in texts for line in text.splitlines()), key=_place)
        self.batches = sorted((torch.load(share) for share in self._shares.glob("*.pt")), key=_place)
        self._replace_lines()
        self._replace_tensors()
        if isinstance(pl_module, Task):
            pl_module.write_predictions(self.records, self.folder)
        shutil.rmtree(self._shares)

    def _replace_lines(self) -> None:
        """Put the new lines in the place of the earlier ones, whose pictures go."""
        merged = self._shares / "merged"
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in self.records]
        merged.write_text("".join(lines), **TEXT)
        result = self.folder / JSONL
        earlier = [json.loads(line) for line in result.read_text(**TEXT).splitlines()] if result.is_file() else []
        stale = _pictures(earlier) - _pictures(self.records)
        merged.replace(result)
        for name in stale:
            (self.folder / name).unlink(missing_ok=True)
        if self.batches and not self.records:
            result.unlink()

    def _replace_tensors(self) -> None:
        """Put what is no text in the place of what was there."""
        (self.folder / TENSORS).unlink(missing_ok=True)
        if self.batches:
            merged = self._shares / "merged"
            torch.save(self.batches, merged)
            merged.replace(self.folder / TENSORS)


def _drawn(task: Task[Any], source: Any, index: int, record: Record) -> Mapping[str, tuple[str, Image.Image | Figure]]:
    """What there is to see of one prediction, with the names of the files, by what it is."""
    if not hasattr(source, "picture"):
        return {kind: (f"{index:05d}_{kind}.png", figure) for kind, figure in task.draw_alone(record).items()}
    name = f"{index:05d}_{Path(source.inputs[index]).stem}"
    picture = draw_record(task, source, index, record)
    found = {} if picture is None else {"picture": (f"{name}.png", picture)}
    if type(task).draw_files is not Task.draw_files:
        for kind, drawn in task.draw_files(source.picture(index), record).items():
            found[kind] = (f"{name}_{kind}.png", drawn)
    return found


def _place(entry: dict[str, Any]) -> tuple[int, int]:
    """What entries are sorted by."""
    index = entry["index"]
    return entry.get("dataloader", 0), index if isinstance(index, int) else min(index, default=0)


def _plain_entries(source: Any, indices: Sequence[int], prediction: Any) -> list[Record] | None:
    """The lines of what a plain predict_step gave for some items; None where it cannot be written as lines."""
    found = written(prediction, len(indices))
    if found is None:
        return None
    entries: list[Record] = []
    for index, value in zip(indices, found, strict=False):
        known = {"index": index} if source is None else {"index": index, "input": source.inputs[index]}
        named = isinstance(value, dict) and not known.keys() & value.keys()
        entries.append({**known, **value} if named else {**known, "prediction": value})
    return entries
