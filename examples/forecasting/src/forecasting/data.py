"""The data: a table with a column for each series and a row for each point in time."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from leyden.data import DataModule, Split
from leyden.errors import DataError, UsageError
from leyden.folds import Fold
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from forecasting.batch import SeriesFacts, Windows
from forecasting.made_up import GRIDS, write_loads
from forecasting.plots import chart

TIME = "time"  # the first column


class SeriesCSV(DataModule[Windows]):
    """Your own time series: a CSV file with the column `time`, then one for each series, a row for each point in time.

    Rows are at equal distances and without gaps. The splits lie behind each other: training, validation, test; no
    window reaches from one into another. In cross-validation the folds are blocks of time.

    Args:
        history: rows that a forecast looks at.
        horizon: rows that it gives.
        season: rows after which the series are expected to repeat themselves: 24 for hours of the day.
        val_fraction: share of the rows for validation.
        test_fraction: share of the rows for the test, the last ones.
        **data_module: the arguments of every data module. `root` is the file; `seed` has no effect.

    Raises:
        UsageError: without a root, and for a value out of its range.
        DataError: for a table that cannot be used, naming file, line and column.
    """

    facts: SeriesFacts
    trained_facts: SeriesFacts | None

    def __init__(
        self,
        history: int = 48,
        horizon: int = 24,
        season: int = 24,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        if min(history, horizon, season) < 1:
            raise UsageError(f"history is {history}, horizon {horizon}, season {season}; each must be at least 1 row.")
        if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
            raise UsageError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}; both must be above 0, their sum "
                "below 1."
            )
        self.history = history
        self.horizon = horizon
        self.season = season
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """Loads of 25 days."""
        write_loads(root / "loads.csv", days=25)
        return {"root": str(root / "loads.csv"), "history": 24, "horizon": 6, "batch_size": 32}

    @classmethod
    def fabricate_inputs(cls, folder: Path) -> list[str]:
        """Five tables of one series and two days each."""
        write_loads(folder / "all.csv", days=10, seed=1)
        table = pd.read_csv(folder / "all.csv")[[TIME, next(iter(GRIDS))]]
        paths = [folder / f"day_{day}.csv" for day in range(5)]
        for day, path in enumerate(paths):
            table.iloc[24 * day : 24 * (day + 2)].to_csv(path, index=False)
        return [str(path) for path in paths]

    def path(self) -> Path:
        """The file given; there is no standard place for somebody's own series."""
        if self.root is None:
            raise UsageError("SeriesCSV needs your table: --data.root FILE.")
        return Path(self.root).expanduser()

    def describe(self) -> SeriesFacts:
        """The statistics of the training rows; where a checkpoint is evaluated or resumed, those in the checkpoint."""
        names, values = self._table
        shape = {"series_names": names, "history": self.history, "horizon": self.horizon, "season": self.season}
        if self.trained_facts is not None:
            return replace(self.trained_facts, **shape)  # type: ignore[arg-type]
        spans = [values[:, rows.start : rows.stop].double() for rows in self._spans("train")]
        known = torch.cat(spans, dim=1)
        differences = torch.cat([(span[:, self.season :] - span[:, : -self.season]).abs() for span in spans], dim=1)
        if not differences.shape[1] or bool((differences.mean(dim=1) == 0).any()):
            raise DataError(f"{self.path()}: a series repeats itself, or is too short for a season of {self.season}.")
        statistics = {"means": known.mean(1), "stds": known.std(1), "naive_errors": differences.mean(1)}
        return SeriesFacts(**shape, **{name: tuple(each.tolist()) for name, each in statistics.items()})  # type: ignore[arg-type]

    def load(self, split: Split) -> "WindowSource":
        """All windows of the split's rows."""
        _, values = self._table
        length = self.history + self.horizon
        starts = [start for rows in self._spans(split) for start in range(rows.start, rows.stop - length + 1)]
        if not starts:
            raise DataError(f"{self.path()}: {split} has too few rows for one window of {length}.")
        return WindowSource(values, starts, self.describe())

    def load_fold(self, split: Literal["train", "val"], fold: Fold) -> "WindowSource":
        """All windows of the fold's rows. The fold is this data module's, whose training rows `describe` looks at."""
        return self.load(split)

    def load_inputs(self, inputs: Sequence[str]) -> "WindowSource":
        """For each series of each file the forecast of what comes after its last row."""
        facts = self.facts
        histories, series, names = [], [], []
        for file in dict.fromkeys(inputs):
            columns, values = read_table(Path(file).expanduser())
            if strange := [name for name in columns if name not in facts.series_names]:
                known = ", ".join(facts.series_names)
                raise DataError(f"{file}: {', '.join(strange)}: no such series was trained on; there were {known}.")
            if values.shape[1] < facts.history:
                raise DataError(f"{file}: {values.shape[1]} rows, but a forecast looks at {facts.history}.")
            histories.append(values[:, -facts.history :])
            series += [facts.series_names.index(name) for name in columns]
            names += [file] if len(columns) == 1 else [f"{file}:{name}" for name in columns]
        history = torch.cat(histories)
        unknown = torch.full((len(history), facts.horizon), torch.nan)
        return WindowSource(torch.cat((history, unknown), dim=1), [0], facts, torch.tensor(series), names)

    @cached_property
    def _table(self) -> tuple[tuple[str, ...], Tensor]:
        return read_table(self.path())

    def _spans(self, split: Split) -> list[range]:
        """The rows of a split, as one or two stretches of time."""
        rows = self._table[1].shape[1]
        test_start = round(rows * (1 - self.test_fraction))
        if split == "test":
            return [range(test_start, rows)]
        if self.fold is None:
            val_start = round(rows * (1 - self.test_fraction - self.val_fraction))
            return [range(val_start, test_start)] if split == "val" else [range(val_start)]
        if self.fold.is_all:
            return [range(test_start)]
        count, chosen = self.fold.count, self.fold.number - 1
        ends = [round(test_start * place / count) for place in (0, chosen, chosen + 1, count)]
        before, block, after = (range(*pair) for pair in pairwise(ends))
        return [block] if split == "val" else [stretch for stretch in (before, after) if stretch]


class WindowSource(Dataset[Windows]):
    """Windows of a table, cut when a batch asks for them.

    values: (S, R) float32, a row for each series. starts: the first rows of the windows; each counts once for each
    series. series: (S,) int64, which series of the facts a row of values is. inputs: what `predict` calls the rows.
    """

    def __init__(
        self,
        values: Tensor,
        starts: Sequence[int],
        facts: SeriesFacts,
        series: Tensor | None = None,
        inputs: Sequence[str] = (),
    ) -> None:
        self.windows = values.unfold(1, facts.history + facts.horizon, 1)  # (S, W, history + horizon), no copy
        self.starts = torch.tensor(starts, dtype=torch.int64)
        self.series = torch.arange(len(values)) if series is None else series
        self.history = facts.history
        self.statistics = torch.tensor([facts.means, facts.stds, facts.naive_errors])  # (3, S)
        self.inputs = list(inputs)

    def __len__(self) -> int:
        return len(self.series) * len(self.starts)

    def __getitems__(self, indices: Sequence[int]) -> Windows:
        places = torch.from_numpy(np.asarray(indices, dtype=np.int64))
        row, start = places % len(self.series), self.starts[places // len(self.series)]
        windows, series = self.windows[row, start], self.series[row]
        history, future = windows.tensor_split([self.history], dim=1)
        return Windows(history.contiguous(), future.contiguous(), series, *self.statistics[:, series])

    def picture(self, index: int) -> Image.Image:
        """The history of window `index`."""
        return chart(self.__getitems__([index]).history[0].tolist())


def read_table(path: Path) -> tuple[tuple[str, ...], Tensor]:
    """Names and values (S, R) float32 of the series in a CSV file. Raises DataError naming file, line and column."""
    try:
        table = pd.read_csv(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}.") from error
    except ValueError as error:  # what pandas raises, and UnicodeDecodeError
        raise DataError(f"{path}: is no CSV file of UTF-8 text: {error}.") from error
    first, *names = map(str, table.columns)
    if first != TIME or not names or table.empty:
        raise DataError(f"{path}: expected the columns {TIME} and one or more series, and rows below them.")
    numbers = table[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if len(bad := np.argwhere(~np.isfinite(numbers))):
        row, column = bad[0].tolist()
        found = table[names].iloc[row, column]
        raise DataError(f"{path}, line {row + 2}: {names[column]} is {found}, expected a number.")
    return tuple(names), torch.from_numpy(numbers.T.astype(np.float32))
