"""SeriesCSV: windows, splits and folds that do not touch, statistics, and tables that cannot be used."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from leyden.errors import DataError, UsageError
from torch import Tensor

from forecasting.batch import Windows
from forecasting.data import SeriesCSV

ROWS = 200


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two series whose values say which row they are in: 0, 1, 2, ... and, with noise, 1000, 1001, ..."""
    rows = np.arange(ROWS, dtype=float)
    values = {"time": rows, "up": rows, "high": 1000 + rows + np.random.default_rng(0).normal(0, 0.01, ROWS)}
    pd.DataFrame(values).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def make_data(table: Path, **options: object) -> SeriesCSV:
    data = SeriesCSV(root=str(table), **{"history": 6, "horizon": 2, "season": 4, **options})  # type: ignore[arg-type]
    data.setup("fit")
    data.setup("test")
    return data


def windows(data: SeriesCSV, split: str) -> Windows:
    source = data.splits[split]
    batch: Windows = source.__getitems__(range(len(source)))
    return batch


def rows_of(batch: Windows) -> set[int]:
    """The rows that the windows of the first series touch."""
    first: Tensor = torch.cat((batch.history, batch.future), dim=1)[batch.series == 0]
    return set(first.long().flatten().tolist())


def test_a_window_is_a_stretch_of_one_series(table: Path) -> None:
    batch = windows(make_data(table), "train")
    values = torch.cat((batch.history, batch.future), dim=1)
    assert batch.history.shape[1] == 6
    assert batch.future.shape[1] == 2
    steps = values.diff(dim=1)
    torch.testing.assert_close(steps, torch.ones_like(steps), atol=0.1, rtol=0)
    assert ((batch.history[:, 0] > 500).long() == batch.series).all()


def test_the_splits_lie_behind_each_other_and_touch_every_row(table: Path) -> None:
    data = make_data(table, val_fraction=0.2, test_fraction=0.1)
    rows = {split: rows_of(windows(data, split)) for split in ("train", "val", "test")}
    assert rows == {"train": set(range(140)), "val": set(range(140, 180)), "test": set(range(180, 200))}


def test_every_window_of_a_split_is_there_once_for_each_series(table: Path) -> None:
    data = make_data(table, val_fraction=0.2, test_fraction=0.1)
    assert len(data.splits["test"]) == 2 * (20 - 8 + 1)  # type: ignore[arg-type]
    batch = windows(data, "test")
    assert len(torch.unique(batch.history, dim=0)) == len(batch.history)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_fold_is_a_block_of_time_that_no_training_window_reaches_into(number: int, table: Path) -> None:
    data = make_data(table, fold=f"{number}/3", test_fraction=0.1)
    train, val, test = (rows_of(windows(data, split)) for split in ("train", "val", "test"))
    assert val == set(range(60 * (number - 1), 60 * number))
    assert train == set(range(180)) - val
    assert test == set(range(180, 200))


def test_with_fold_all_everything_before_the_test_is_trained_on(table: Path) -> None:
    data = make_data(table, fold="all", test_fraction=0.1)
    assert rows_of(windows(data, "train")) == set(range(180))


@pytest.mark.parametrize("fold", [None, "2/3"])
def test_statistics_are_those_of_the_training_rows(fold: str | None, table: Path) -> None:
    data = make_data(table, fold=fold, val_fraction=0.2, test_fraction=0.1)
    rows = sorted(rows_of(windows(data, "train")))
    up = pd.read_csv(table)["up"][rows]
    assert data.facts.means[0] == pytest.approx(up.mean())
    assert data.facts.stds[0] == pytest.approx(up.std())
    assert data.facts.naive_errors[0] == pytest.approx(4.0), "a season of 4 rows, each 1 more"


def test_predict_looks_at_the_last_rows_of_each_series(table: Path) -> None:
    data = make_data(table)
    source = data.load_inputs([str(table)])
    assert source.inputs == [f"{table}:up", f"{table}:high"]
    batch = source.__getitems__([1, 0])
    assert batch.series.tolist() == [1, 0]
    assert batch.history[1].tolist() == [194, 195, 196, 197, 198, 199]
    assert batch.future.isnan().all()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("when,up\n1,2\n", "expected the columns time and one or more series"),
        ("time\n1\n", "expected the columns time and one or more series"),
        ("time,up\n", "expected the columns time and one or more series"),
        ("time,up,down\n1,2,3\n2,3,x\n", "line 3: down is x, expected a number"),
        ("time,up\n1,2\n2,\n", "line 3: up is nan, expected a number"),
        ("time,up\n" + "1,2\n" * 20, "train has too few rows|repeats itself"),
    ],
)
def test_a_bad_table_is_named(text: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"bad\.csv.*({found})"):
        make_data(path)


def test_another_series_cannot_be_forecast(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("time,down\n" + "1,2\n" * 10)
    with pytest.raises(DataError, match="down: no such series was trained on; there were up, high"):
        make_data(table).load_inputs([str(other)])


@pytest.mark.parametrize("options", [{"history": 0}, {"season": 0}, {"val_fraction": 0.9}, {"test_fraction": 0.0}])
def test_a_value_out_of_range_is_refused(options: dict[str, float], table: Path) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        make_data(table, **options)
