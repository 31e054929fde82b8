"""A table's columns as features: what is computed from the training rows, and how it turns any row into numbers.

The statistics live in `TableFacts`, so that training rows, validation rows and what `predict` is given go the same way.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from lightning.pytorch.utilities import rank_zero_warn
from scipy.stats import skew, yeojohnson
from sklearn.preprocessing import PowerTransformer, StandardScaler
from torch import Tensor

from leyden.batches import TableFacts
from leyden.errors import DataError
from leyden_datamodules._tables import Numbers, Table, Texts, shorten

SKEWED = 0.75  # skewness from which a column of numbers is made symmetric
SPREAD = 1e-6  # of the largest number; what spreads less is lost in rounding
NAMED = 3  # values in one warning
Features = npt.NDArray[np.float32]


class NumericColumn(NamedTuple):
    """What `TableFacts.numeric_columns` holds of each."""

    name: str
    mean: float
    std: float
    power: float | None
    has_missing: bool

    @property
    def features(self) -> list[str]:
        """The names of the column's features."""
        return [self.name, *([f"{self.name} is missing"] if self.has_missing else [])]


class CategoricalColumn(NamedTuple):
    """What `TableFacts.categorical_columns` holds of each."""

    name: str
    categories: tuple[str, ...]
    has_rare: bool
    has_missing: bool

    @property
    def features(self) -> list[str]:
        """The names of the column's features."""
        kinds = [kind for kind in ("rare", "missing") if getattr(self, f"has_{kind}")]
        named = [f"{self.name}={category}" for category in self.categories]
        return named + [f"{self.name} is {kind}" for kind in kinds]


@dataclass
class Surprises:
    """What rows hold that the training rows did not, counted to be told once."""

    unseen: dict[str, Counter[str]] = field(default_factory=dict)
    rare: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)

    def warn(self) -> None:
        """One warning for each column with new categories, one for all columns with rare ones, one for new gaps."""
        for name, values in self.unseen.items():
            some = ", ".join(repr(value) for value, _ in values.most_common(NAMED))
            rest = ", ..." if len(values) > NAMED else ""
            rank_zero_warn(
                f"{name} has categories that training did not see, in {values.total()} rows: {some}{rest}. "
                "Taken as none of the known ones."
            )
        if self.rare:
            columns = shorten([f"{name} ({count})" for name, count in self.rare.items()])
            rank_zero_warn(
                f"categories that training saw seldom or never (in so many rows) are taken as rare ones: {columns}."
            )
        if self.missing:
            columns = shorten([f"{name} ({count})" for name, count in self.missing.items()])
            rank_zero_warn(
                "values are missing in columns where training never lacked one (in so many rows); numbers are taken as "
                f"the mean, categories as none of the known ones: {columns}."
            )


def split_kinds(table: Table, names: Iterable[str], categorical: Collection[str]) -> tuple[list[str], list[str]]:
    """Which of these columns hold numbers, and which categories.

    A column holds numbers where more than half of what it says are numbers, unless it is named as categorical. Raises
    DataError where such a column says something else as well.
    """
    numeric, others = [], []
    for name in names:
        said = int(pd.notna(table.columns[name]).sum())
        stray = len(table.bad_numbers(name))
        if name in categorical or (said and 2 * stray >= said):
            others.append(name)
            continue
        if stray:
            value = table.columns[name][table.bad_numbers(name)[0]]
            table.numbers(
                name,
                f"Correct it; or say that it means a missing value (--data.missing '[\"{value}\"]'), or that the "
                f"column holds categories (--data.categorical '[\"{name}\"]').",
            )
        numeric.append(name)
    return numeric, others


def fit_numeric(table: Table, rows: Tensor, names: Sequence[str], unskew: bool) -> list[NumericColumn]:
    """The statistics of columns of numbers over some rows, (n,) int64; columns that say nothing there are left out."""
    columns = {name: table.numbers(name)[rows.numpy()] for name in names}
    gaps = {name: bool(np.isnan(values).any()) for name, values in columns.items()}
    kept = {name: values for name, values in columns.items() if _says_something(values)}
    _warn_of_idle("numbers", [name for name in names if name not in kept])
    if not kept:
        return []
    powers = {name: _power(values) if unskew else None for name, values in kept.items()}
    scaler = StandardScaler().fit(np.column_stack([_powered(values, powers[name]) for name, values in kept.items()]))
    statistics = zip(kept, scaler.mean_.tolist(), scaler.scale_.tolist(), strict=True)
    return [NumericColumn(name, mean, std, powers[name], gaps[name]) for name, mean, std in statistics]


def fit_categorical(table: Table, rows: Tensor, names: Sequence[str], min_frequency: int) -> list[CategoricalColumn]:
    """The categories of columns over some rows, (n,) int64; columns that say nothing there are left out."""
    columns = []
    for name in names:
        values = table.texts(name)[rows.numpy()]
        is_missing = pd.isna(values)
        categories, has_rare = _categories(values[~is_missing], min_frequency)
        columns.append(CategoricalColumn(name, categories, has_rare, bool(is_missing.any())))
        if len(categories) > len(rows) / 2:
            rank_zero_warn(
                f"{name} has {len(categories)} categories in {len(rows)} training rows, too many to learn from. Leave "
                f"it out (--data.drop '[\"{name}\"]') or join the rare ones (--data.min_frequency 5)."
            )
    _warn_of_idle("categories", [column.name for column in columns if len(column.features) < 2])
    return [column for column in columns if len(column.features) > 1]


def encode(table: Table, facts: TableFacts, surprises: Surprises) -> Tensor:
    """The features of a table's rows, (n, F) float32, by the statistics in `facts` alone.

    Missing numbers are the mean, that is 0; missing and unknown categories are none of the known ones. Adds to
    `surprises`. Raises DataError where a column is missing or a number is bad.
    """
    columns = list(_columns(facts))
    table.require([column.name for column in columns], "that the network reads")
    features = np.zeros((len(table), len(facts.feature_names)), dtype=np.float32)
    start = 0
    for column in columns:
        room = features[:, start : start + len(column.features)]
        if isinstance(column, NumericColumn):
            is_missing = _encode_numbers(table, column, room)
        else:
            is_missing = _encode_categories(table, column, room, surprises)
        if column.has_missing:
            room[:, -1] = is_missing
        elif is_missing.any():
            surprises.missing[column.name] += int(is_missing.sum())
        start += room.shape[1]
    return torch.from_numpy(features)


def _columns(facts: TableFacts) -> Iterator[NumericColumn | CategoricalColumn]:
    yield from (NumericColumn(*column) for column in facts.numeric_columns)
    yield from (CategoricalColumn(*column) for column in facts.categorical_columns)


def _encode_numbers(table: Table, column: NumericColumn, room: Features) -> npt.NDArray[np.bool_]:
    values = table.numbers(column.name)
    is_missing = np.isnan(values)
    with np.errstate(over="ignore"):
        scaled = (_powered(values, column.power) - column.mean) / column.std
        room[:, 0] = np.where(is_missing, 0, scaled)
    if bad := np.flatnonzero(~np.isfinite(room[:, 0])).tolist():
        value = table.columns[column.name][bad[0]]
        raise DataError(f"{table.where(bad[0])}: {column.name} is {value}, too far from what was trained on.")
    return is_missing


def _encode_categories(
    table: Table, column: CategoricalColumn, room: Features, surprises: Surprises
) -> npt.NDArray[np.bool_]:
    texts = table.texts(column.name)
    is_missing = pd.isna(texts)
    places = pd.Index(column.categories, dtype=object).get_indexer(pd.Index(texts, dtype=object))
    other = (places < 0) & ~is_missing
    if column.has_rare:
        places[other] = len(column.categories)
        if other.any():
            surprises.rare[column.name] += int(other.sum())
    elif other.any():
        surprises.unseen.setdefault(column.name, Counter()).update(texts[other].tolist())
    known = np.flatnonzero(places >= 0)
    room[known, places[known]] = 1
    return is_missing


def _says_something(values: Numbers) -> bool:
    """Whether not all numbers are missing, or the same."""
    said = values[~np.isnan(values)]
    return len(said) > 0 and (len(said) < len(values) or bool(said.min() < said.max()))


def _warn_of_idle(what: str, names: list[str]) -> None:
    if names:
        rank_zero_warn(
            f"columns of {what} that say the same, or nothing, in all training rows are left out: {shorten(names)}"
        )


def _power(values: Numbers) -> float | None:
    """Lambda of the Yeo-Johnson transform where numbers are skewed and the transform leaves them some spread."""
    said = values[~np.isnan(values)]
    if not abs(skew(said)) > SKEWED:
        return None
    power = float(PowerTransformer(standardize=False).fit(said[:, None]).lambdas_[0])
    powered = _powered(said, power)
    largest = np.abs(powered).max()
    return power if np.isfinite(largest) and powered.std() > SPREAD * largest else None


def _powered(values: Numbers, power: float | None) -> Numbers:
    if power is None:
        return values
    powered = np.full_like(values, np.nan)
    said = ~np.isnan(values)
    powered[said] = yeojohnson(values[said], power)
    return powered


def _categories(values: Texts, min_frequency: int) -> tuple[tuple[str, ...], bool]:
    """The categories with a feature of their own, sorted, and whether there are rarer ones."""
    counts = pd.Series(values).value_counts()
    common = sorted(str(category) for category in counts[counts >= min_frequency].index)
    return tuple(common), len(common) < len(counts)
