"""Predictions: writes what `predict` found, in the order of the input, each input exactly once."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from leyden import draw
from leyden.callbacks.pictures import draw_record
from leyden.task import Record, Task, without_tensors

PICTURE = re.compile(r"\d{5,}_.*\.png", re.DOTALL)
TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # a file's name need not be UTF-8


def _pictures(records: Sequence[Record]) -> set[str]:
    """The pictures that are named in records, as a prediction made them."""
    named = (value for each in records for key, value in each.items() if key != "input" and isinstance(value, str))
    return {Path(value).name for value in named if PICTURE.fullmatch(Path(value).name)}


class Predictions(BasePredictionWriter):
    """One line of predictions.jsonl and, where the task draws, pictures for each input.

    Each process writes its share beside the result; rank 0 puts the shares together. An earlier predictions.jsonl is
    replaced only when all is done.

    Args:
        folder: where the results go.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("batch")
        self.folder = folder
        self.records: list[Record] = []

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
        source: Any = trainer.datamodule.splits["predict"]  # type: ignore[attr-defined]
        assert batch_indices is not None
        assert isinstance(pl_module, Task)
        with (self._shares / f"{trainer.global_rank}.jsonl").open("a", **TEXT) as file:
            for index, record in zip(batch_indices, prediction, strict=True):
                names = self._save_pictures(pl_module, source, index, record)
                entry = {"index": index, "input": source.inputs[index], **without_tensors(record), **names}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def _save_pictures(self, task: Task[Any], source: Any, index: int, record: Record) -> dict[str, str]:
        """Write the pictures of one prediction; their names in the folder, by what they are."""
        if not hasattr(source, "picture"):
            return {}
        name = f"{index:05d}_{Path(source.inputs[index]).stem}"
        picture = draw_record(task, source, index, record)
        found = {} if picture is None else {"picture": (f"{name}.png", picture)}
        if type(task).draw_files is not Task.draw_files:
            for kind, drawn in task.draw_files(source.picture(index), record).items():
                found[kind] = (f"{name}_{kind}.png", drawn)
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
        texts = [share.read_text(**TEXT) for share in self._shares.iterdir()]
        self.records = [json.loads(line) for text in texts for line in text.splitlines()]
        self.records.sort(key=lambda record: record["index"])
        merged = self._shares / "merged"
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in self.records]
        merged.write_text("".join(lines), **TEXT)
        result = self.folder / "predictions.jsonl"
        earlier = [json.loads(line) for line in result.read_text(**TEXT).splitlines()] if result.is_file() else []
        stale = _pictures(earlier) - _pictures(self.records)
        merged.replace(result)
        for name in stale:
            (self.folder / name).unlink(missing_ok=True)
        assert isinstance(pl_module, Task)
        pl_module.write_predictions(self.records, self.folder)
        shutil.rmtree(self._shares)
