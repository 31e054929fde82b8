"""Samples after each epoch: how many, and which."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.callbacks.pictures import Pictures


def shown(toy: Any, folder: Path, val_size: int, sheet: tuple[int, int] | None = None, **kwargs: Any) -> list[int]:
    """Which validation items were predicted and written, by what the trained network makes of each."""
    task = toy.Task()
    if sheet is not None:
        task.sample_sheet = sheet
    data = toy.Data(toy.points(val_size + 8), val_size=val_size, batch_size=64)
    toy.trainer(max_epochs=1, callbacks=[Pictures(test_folder=folder, **kwargs)]).fit(task, data)
    file = folder / "samples.jsonl"
    if not file.is_file():
        return []
    with torch.no_grad():
        known = task.eval().network(data.splits["val"].batch.inputs).squeeze(1).tolist()
    found = [json.loads(line)["value"] for line in file.read_text().splitlines()]
    return [min(range(val_size), key=lambda item: abs(known[item] - value)) for value in found]


def test_samples_fill_the_tasks_sheet_and_are_spread_over_the_split(toy: Any, tmp_path: Path) -> None:
    assert shown(toy, tmp_path / "default", 48) == list(range(0, 48, 2)), "24 of 48"
    assert shown(toy, tmp_path / "sheet", 48, sheet=(3, 2)) == list(range(0, 48, 8))


@pytest.mark.parametrize(("samples", "expected"), [(0, []), (2, [0, 5]), (100, list(range(10)))])
def test_as_many_samples_as_asked_for_and_there(toy: Any, tmp_path: Path, samples: int, expected: list[int]) -> None:
    assert shown(toy, tmp_path, 10, samples=samples) == expected
