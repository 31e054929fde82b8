"""A linear function with noise: the data set whose answer is known."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from leyden.batches import LabelledRows, TableFacts
from leyden.data import DataModule, InMemory, Split
from leyden.errors import UsageError
from leyden_datamodules._table_data import NamedRows, rows_of_files

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class SyntheticRegression(DataModule[LabelledRows]):
    """A linear function with noise, y = Xw + b + e, to learn w and b from (Zhang et al., Dive into Deep Learning 3.3).

    X is drawn from N(0, 1) and e from N(0, noise^2), for each split by itself and for one seed always alike; nothing is
    read from disk, and root is of no use. Features and targets reach the network as they are, so that its weights
    become w and b. `predict` takes CSV or Parquet files with the columns x1, x2, ... and perhaps y.

    Args:
        weights: w, one for each feature.
        bias: b.
        noise: standard deviation of e.
        rows: how many to train on.
        val_rows: how many to validate on.
        test_rows: how many to test on.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: for a value out of its range.
    """

    def __init__(
        self,
        weights: Sequence[float] = (2.0, -3.4),
        bias: float = 4.2,
        noise: float = 0.01,
        rows: int = 1000,
        val_rows: int = 1000,
        test_rows: int = 1000,
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        if not weights or not all(map(math.isfinite, [*weights, bias])):
            raise UsageError(f"weights are {list(weights)} and bias {bias}; expected at least one weight, all finite.")
        if not 0 <= noise < math.inf:
            raise UsageError(f"noise is {noise}; it is a standard deviation, 0 or more.")
        for name, count in {"rows": rows, "val_rows": val_rows, "test_rows": test_rows}.items():
            if count < 1:
                raise UsageError(f"{name} is {count}; it must be at least 1.")
        self.weights = tuple(weights)
        self.bias = bias
        self.noise = noise
        self.counts: dict[Split, int] = {"train": rows, "val": val_rows, "test": test_rows}

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """Fewer rows, since there are no files to write."""
        return {"rows": 96, "val_rows": 21, "test_rows": 27, "batch_size": 16}

    @classmethod
    def fabricate_inputs(cls, folder: Path) -> list[str]:
        """Five files with a row of two numbers each."""
        paths = [folder / f"{number}.csv" for number in range(5)]
        for path, (x1, x2) in zip(paths, np.random.default_rng(0).normal(size=(5, 2)).tolist(), strict=True):
            path.write_text(f"x1,x2\n{x1},{x2}\n", encoding="utf-8")
        return [str(path) for path in paths]

    def describe(self) -> TableFacts:
        """The features x1, x2, ... and the target y, all as they are."""
        names = tuple(f"x{number}" for number in range(1, len(self.weights) + 1))
        return TableFacts(
            feature_names=names,
            target_name="y",
            id_name=None,
            log_target=False,
            target_mean=0.0,
            target_std=1.0,
            positive_target=False,
            numeric_columns=tuple((name, 0.0, 1.0, None, False) for name in names),
            categorical_columns=(),
        )

    def load(self, split: Split) -> InMemory:
        """Rows drawn for this split."""
        generator = torch.Generator().manual_seed(len(SPLITS) * self.seed + SPLITS.index(split))
        features = torch.randn(self.counts[split], len(self.weights), generator=generator)
        noise = self.noise * torch.randn(len(features), generator=generator)
        return InMemory(LabelledRows(features, features @ torch.tensor(self.weights) + self.bias + noise))

    def load_inputs(self, inputs: Sequence[str]) -> NamedRows:
        """Every row of CSV or Parquet files with the columns of the features."""
        return rows_of_files(inputs, cast(TableFacts, self.facts or self.describe()))
