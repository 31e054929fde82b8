"""What the data modules of tables share: splits, targets, statistics of the training rows, and rows for `predict`."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leyden.batches import LabelledRows, TableFacts
from leyden.data import BatchSource, DataModule, InMemory, Part, Split
from leyden.errors import DataError, UsageError
from leyden.folds import Fold
from leyden_datamodules._features import Surprises, encode, fit_categorical, fit_numeric, split_kinds
from leyden_datamodules._tables import Numbers, Table, read_table

UNLABELLED_TEST = (
    " Without targets nothing can be tested: `predict` takes such a file; without a test file, rows are cut from the "
    "training file."
)


class NamedRows(InMemory):
    """Rows for `predict`. inputs: what each is called."""

    def __init__(self, batch: LabelledRows, inputs: list[str]) -> None:
        super().__init__(batch)
        self.inputs = inputs


def rows_of_files(
    files: Sequence[str],
    facts: TableFacts,
    id_column: str | None = None,
    separator: str = ",",
    missing: Collection[str] = (),
) -> NamedRows:
    """Every row of these files, in order, encoded by `facts`; with its target where the file has that column.

    A row is called by its id where the file has the id column and fills it; else by the file's name, in a file of more
    than one row followed by the row's number from 1. Warns of what training did not see. Raises DataError as
    `read_table` and `encode` do.
    """
    features, targets, inputs = [], [], []
    surprises = Surprises()
    for file in dict.fromkeys(files):
        table = read_table(Path(file).expanduser(), separator, missing)
        known = facts.target_name in table.columns
        target = table.numbers(facts.target_name) if known else np.full(len(table), np.nan)
        features.append(encode(table, facts, surprises))
        targets.append(torch.from_numpy(target.astype(np.float32)))
        inputs += _row_names(file, table, id_column)
    surprises.warn()
    return NamedRows(LabelledRows(torch.cat(features), torch.cat(targets)), inputs)


def one_row_files(rows: pd.DataFrame, folder: Path) -> list[str]:
    """Each row as a CSV file of its own, as `fabricate_inputs` offers them."""
    paths = [str(folder / f"{number}.csv") for number in range(len(rows))]
    for number, path in enumerate(paths):
        rows.iloc[[number]].to_csv(path, index=False, na_rep="NA")
    return paths


def _row_names(file: str, table: Table, id_column: str | None) -> list[str]:
    default = [file] if len(table) == 1 else [f"{file}:{number}" for number in range(1, len(table) + 1)]
    if id_column is None or id_column not in table.columns:
        return default
    return [name if ident is None else ident for ident, name in zip(table.texts(id_column), default, strict=True)]


class TableData(DataModule[LabelledRows]):
    """Base of the data modules of tables: one number is learnt from all other columns.

    A column holds numbers where more than half of what it says are numbers; a value that is none is then an error. All
    other columns hold categories. Numbers are standardised; a missing one is the mean, and where the training rows lack
    some an extra feature says so. Each category is a feature of 0 or 1, and so is a missing one where the training rows
    lack some; a category that training did not see is none of them. Columns that say the same in all training rows are
    left out, with a warning. All statistics are those of the training rows, in cross-validation of the fold's; a
    checkpoint is evaluated and resumed with those in the checkpoint.

    A subclass says which file is trained on (`train_file_path`) and, where there is one, tested on (`test_file_path`).

    Args:
        target: column to learn.
        id_column: column that names the rows and is not learnt from.
        drop: columns that are not learnt from.
        categorical: columns of numbers that are categories.
        missing: texts that mean a missing value, beside nothing, NA, N/A, NaN, null and the like.
        min_frequency: categories with fewer training rows than this share one feature, unknown ones too.
        log_target: learn the logarithm of the target.
        unskew: make columns of skewed numbers more like a normal distribution (Yeo and Johnson 2000) before they are
            standardised.
        separator: what stands between the fields of a CSV file.
        val_fraction: share of the rows cut for validation, by seed.
        test_fraction: share of the rows cut for the test, by seed, where no file is given for it; 0 cuts none.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a file that cannot be used, naming file, line and column.
    """

    def __init__(
        self,
        target: str | None = None,
        id_column: str | None = None,
        drop: list[str] | None = None,
        categorical: list[str] | None = None,
        missing: list[str | float] | None = None,
        min_frequency: int = 1,
        log_target: bool = False,
        unskew: bool = False,
        separator: str = ",",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        if min_frequency < 1:
            raise UsageError(f"min_frequency is {min_frequency}; it must be at least 1 row (1: every category counts).")
        if val_fraction <= 0 or test_fraction < 0 or val_fraction + test_fraction >= 1:
            raise UsageError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}; the first must be above 0, the "
                "second 0 or more, their sum below 1."
            )
        self.separator = "\t" if separator == r"\t" else separator
        if len(self.separator) != 1:
            raise UsageError(f"separator is {separator!r}; it must be one character, such as ; or \\t.")
        self.target = target
        self.id_column = id_column
        self.drop = drop or []
        self.categorical = categorical or []
        self.missing = [str(value) for value in missing or []]
        self.min_frequency = min_frequency
        self.log_target = log_target
        self.unskew = unskew
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    @abstractmethod
    def train_file_path(self) -> Path:
        """The file that is trained on."""

    def test_file_path(self) -> Path | None:
        """The file that is tested on; None where test rows are cut from the training file."""
        return None

    def describe(self) -> TableFacts:
        """The checkpoint's facts where one is evaluated or resumed, else those of the training rows."""
        if self.trained_facts is not None:
            # another scale of the target is refused by `conflicts`
            return replace(cast(TableFacts, self.trained_facts), log_target=self.log_target)
        return self._fitted

    def load(self, split: Split) -> BatchSource:
        """Rows of the training file, or all of the test file where there is one."""
        path = self.test_file_path() if split == "test" else None
        if path is not None:
            surprises = Surprises()
            data = self._labelled(self._read(path, UNLABELLED_TEST), surprises)
            surprises.warn()
            return data
        rows = self._rows[split]
        if not len(rows):
            raise UsageError("there is nothing to test on: test_fraction is 0, and no file with test rows is given.")
        return Part(self._data, rows)

    def load_fold(self, split: Literal["train", "val"], fold: Fold) -> BatchSource:
        """Rows of the training file. The fold is this data module's, whose training rows `facts` are computed from."""
        return Part(self._data, self._rows[split])

    def load_inputs(self, inputs: Sequence[str]) -> NamedRows:
        """Every row of CSV or Parquet files with the columns that were trained on, in any order; others are ignored."""
        return rows_of_files(inputs, self._table_facts(), self.id_column, self.separator, self.missing)

    def _table_facts(self) -> TableFacts:
        return cast(TableFacts, self.facts or self.describe())

    @cached_property
    def _table(self) -> Table:
        """The training file."""
        return self._read(self.train_file_path())

    @cached_property
    def _data(self) -> InMemory:
        """The training file's rows, encoded. What only validation or test rows hold, they hold by chance."""
        if self.trained_facts is not None:
            surprises = Surprises()
            encode(self._table.select(self._rows["train"]), self._table_facts(), surprises)
            surprises.warn()  # it is not the file that the checkpoint was trained on
        return self._labelled(self._table, Surprises())

    @cached_property
    def _rows(self) -> dict[str, Tensor]:
        """The rows of each split of the training file, sorted: (n,) int64."""
        order = torch.randperm(len(self._table), generator=torch.Generator().manual_seed(self.seed))
        test_count = 0 if self.test_file_path() else self._count("test", self.test_fraction)
        parts = {"test": order[:test_count].sort().values}
        if self.fold is None:
            val_end = test_count + self._count("val", self.val_fraction)
            parts |= {"val": order[test_count:val_end].sort().values, "train": order[val_end:].sort().values}
        else:
            pool = order[test_count:].sort().values
            train, val = self.fold.cut(len(pool), self.seed)
            parts |= {"train": pool[train], "val": pool[val]}
        if len(parts["train"]) < 2:
            raise DataError(f"{self._table.path}: {len(self._table)} rows are too few to train, validate and test on.")
        return parts

    def _count(self, split: str, fraction: float) -> int:
        count = round(fraction * len(self._table))
        if fraction and not count:
            raise DataError(
                f"{self._table.path}: {len(self._table)} rows are too few to cut {fraction:g} of them for {split}. Use "
                f"more rows or a larger {split}_fraction."
            )
        return count

    @cached_property
    def _fitted(self) -> TableFacts:
        """The facts of the training rows."""
        table, rows, name = self._table, self._rows["train"], self._target(self._table)
        self._require_columns(table, name)
        apart = {name, self.id_column, *self.drop}
        learnt = [column for column in table.columns if column not in apart]
        numeric, categorical = split_kinds(table, learnt, self.categorical)
        numbers = fit_numeric(table, rows, numeric, self.unskew)
        categories = fit_categorical(table, rows, categorical, self.min_frequency)
        feature_names = [name for column in numbers for name in column.features]
        feature_names += [name for column in categories for name in column.features]
        if not feature_names:
            raise DataError(f"{table.path}: no column is left to learn {name} from.")
        targets = self._targets(table, self.log_target)
        mean, std = self._scale_of((np.log(targets) if self.log_target else targets)[rows.numpy()])
        return TableFacts(
            feature_names=tuple(feature_names),
            target_name=name,
            id_name=self.id_column,
            log_target=self.log_target,
            target_mean=mean,
            target_std=std,
            positive_target=bool((targets > 0).all()),
            numeric_columns=tuple(column[:] for column in numbers),
            categorical_columns=tuple(column[:] for column in categories),
        )

    def _scale_of(self, targets: Numbers) -> tuple[float, float]:
        """Mean and standard deviation. Raises DataError where there is nothing to learn."""
        if targets.min() == targets.max():
            raise DataError(
                f"{self._table.path}: {self.target} is the same in all {len(targets)} training rows; there is nothing "
                "to learn."
            )
        return float(targets.mean()), float(targets.std())

    def _read(self, path: Path, advice: str = "") -> Table:
        """A file with targets."""
        table = read_table(path, self.separator, self.missing)
        table.require([self._target(table)], "of the target", advice)
        return table

    def _target(self, table: Table) -> str:
        if self.target is None:
            columns = ", ".join(table.columns)
            raise UsageError(f"which column is to be learnt? --data.target NAME. {table.path} has {columns}.")
        return self.target

    def _require_columns(self, table: Table, target: str) -> None:
        """Raises DataError for options that name a column which is not there, UsageError for the target among them."""
        named = {"id_column": [self.id_column or target], "drop": self.drop, "categorical": self.categorical}
        for option, names in named.items():
            for name in names:
                table.require([name], f"that {option} names")
        if target in (self.id_column, *self.drop, *self.categorical):
            raise UsageError(f"the target {target} cannot be the id_column, nor among drop or categorical.")

    def _labelled(self, table: Table, surprises: Surprises) -> InMemory:
        """All rows of a file, encoded, with their targets."""
        facts = self._table_facts()
        targets = torch.from_numpy(self._targets(table, facts.log_target).astype(np.float32))
        return InMemory(LabelledRows(encode(table, facts, surprises), targets))

    def _targets(self, table: Table, log_target: bool) -> Numbers:
        """The targets, (n,). Raises DataError that names the first row without one, or without a logarithm."""
        name = self._target(table)
        targets = table.numbers(name)
        if bad := np.flatnonzero(np.isnan(targets)).tolist():
            raise DataError(f"{table.where(bad[0])}: {name} is missing; every row must have its target.{_more(bad)}")
        if log_target and (bad := np.flatnonzero(targets <= 0).tolist()):
            raise DataError(
                f"{table.where(bad[0])}: {name} is {targets[bad[0]]:g}, which has no logarithm.{_more(bad)} With "
                "log_target every target must be above 0."
            )
        return targets


def _more(bad: list[int]) -> str:
    return f" So in {len(bad)} rows." if len(bad) > 1 else ""
