"""Predictions: writes what `predict` found, in the order of the input, each input exactly once."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from leyden import draw
from leyden.callbacks.pictures import draw_record
from leyden.task import Record, Task

TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # a file's name need not be UTF-8


def _pictures(result: Path) -> set[str]:
    """The pictures that an earlier prediction into the same folder made."""
    if not result.is_file():
        return set()
    records = [json.loads(line) for line in result.read_text(**TEXT).splitlines()]
    return {Path(record["picture"]).name for record in records if record.get("picture")}


class Predictions(BasePredictionWriter):
    """One line of predictions.jsonl and, where the task draws, one picture for each input.

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
                picture = draw_record(pl_module, source, index, record)
                entry = {"index": index, "input": source.inputs[index], **record}
                if picture is not None:
                    entry["picture"] = f"{index:05d}_{Path(source.inputs[index]).stem}.png"
                    draw.save(picture, self.folder / entry["picture"])
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

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
        stale = _pictures(result) - {record.get("picture") for record in self.records}
        merged.replace(result)
        for name in stale:
            (self.folder / name).unlink(missing_ok=True)
        assert isinstance(pl_module, Task)
        pl_module.write_predictions(self.records, self.folder)
        shutil.rmtree(self._shares)
