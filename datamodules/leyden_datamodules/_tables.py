"""Tables on disk: CSV and Parquet files read into columns, and errors that name file, line and column."""

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from leyden.errors import DataError, UsageError, guess

Numbers = npt.NDArray[np.float64]
Texts = npt.NDArray[np.object_]
# not "None", which is the name of a category in more than one well-known table
MISSING = frozenset(("", "#N/A", "<NA>", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"))
LARGEST = float(np.finfo(np.float32).max)
LISTED = 400  # characters of column names in one message


class Table:
    """A table that was read.

    Args:
        path: its file, for messages.
        columns: (n,) arrays by name: text without blanks around it and None where it is missing, or numbers of any
            kind.
        lines: (n,) where each row begins: its line in a CSV file, its number in a Parquet file, both from 1.
        unit: `line` or `row`, what `lines` counts.
    """

    def __init__(self, path: Path, columns: dict[str, Any], lines: Sequence[int], unit: str) -> None:
        self.path = path
        self.columns = columns
        self.lines = lines
        self.unit = unit
        self._parsed: dict[str, Numbers] = {}

    def __len__(self) -> int:
        return len(self.lines)

    def select(self, rows: Tensor) -> "Table":
        """Some rows, (n,) int64 indices from 0."""
        chosen = rows.tolist()
        columns = {name: column[chosen] for name, column in self.columns.items()}
        return Table(self.path, columns, [self.lines[row] for row in chosen], self.unit)

    def where(self, row: int) -> str:
        """The place of a row, which is counted from 0, for a message."""
        return f"{self.path}, {self.unit} {self.lines[row]}"

    def require(self, names: Sequence[str], what: str, advice: str = "") -> None:
        """Raises DataError unless the table has all these columns; `what` says what they are."""
        lacking = [name for name in names if name not in self.columns]
        if not lacking:
            return
        many = f"{len(lacking)} of the {len(names)} columns" if len(names) > 1 else "the column"
        known = guess(lacking[0], self.columns) or f" Its columns: {shorten(self.columns)}."
        raise DataError(f"{self.path}: lacks {many} {what}: {shorten(lacking)}.{known}{advice}")

    def parsed(self, name: str) -> Numbers:
        """A column as numbers, (n,); NaN where it is missing or no number, also inf where it says so."""
        if name not in self._parsed:
            values = pd.to_numeric(pd.Series(self.columns[name]), errors="coerce")
            self._parsed[name] = values.to_numpy(np.float64, na_value=np.nan)
        return self._parsed[name]

    def bad_numbers(self, name: str) -> list[int]:
        """The rows that say something in this column that is no finite number (of 32 bits)."""
        values = self.parsed(name)
        bad = ~(np.abs(values) <= LARGEST) & pd.notna(self.columns[name])
        return [int(row) for row in bad.nonzero()[0]]

    def numbers(self, name: str, advice: str = "Correct it.") -> Numbers:
        """A column as numbers, (n,), NaN where it is missing. Raises DataError that names the first bad one."""
        if bad := self.bad_numbers(name):
            value = self.columns[name][bad[0]]
            others = f" ({len(bad) - 1} more {'rows' if len(bad) > 2 else 'row'} like it)" if len(bad) > 1 else ""
            raise DataError(
                f"{self.where(bad[0])}: {name} is {str(value)!r}, expected a finite number{others}. {advice}"
            )
        return self.parsed(name)

    def texts(self, name: str) -> Texts:
        """A column as text, (n,), None where it is missing; whole numbers without a fraction."""
        values = self.columns[name]
        return values if values.dtype == object else np.array([_text(value) for value in values], dtype=object)


def read_table(path: Path, separator: str = ",", missing: Collection[str] = ()) -> Table:
    """Read a table: Parquet where the file's name ends in .parquet, else CSV in UTF-8 with a header.

    Args:
        path: the file.
        separator: what stands between the fields of a CSV file.
        missing: texts that mean that there is no value, beside those in MISSING; a number in any way of writing it.

    Raises:
        DataError: naming the file, and where it can the line, for a file that is missing, empty or damaged.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = _read_parquet(path, MISSING.union(missing))
        else:
            table = _read_csv(path, separator, MISSING.union(missing))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    if not len(table):
        raise DataError(f"{path}: has a header and no rows.")
    return table


def shorten(names: Collection[str]) -> str:
    """A list of names for a message, cut where it is long."""
    listing = ", ".join(names)
    return listing if len(listing) <= LISTED else f"{listing[:LISTED].rpartition(', ')[0]}, ... ({len(names)} in all)"


def _read_csv(path: Path, separator: str, missing: Collection[str]) -> Table:
    # pandas fills up rows that are too short, renames columns of one name and does not know a row's line
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        try:
            rows = list(_rows(path, reader))
        except UnicodeDecodeError as error:
            raise _not_utf8(path) from error
        except csv.Error as error:
            what = "a quotation mark is opened and not closed" if "end of data" in str(error) else str(error)
            raise DataError(f"{path}, line {reader.line_num}: is not CSV: {what}.") from error
    if not rows:
        raise DataError(f"{path}: is empty; expected a header and rows.")
    (_, header), *body = rows
    names = _header(path, header)
    cells = zip(*(row for _, row in body), strict=True) if body else ([] for _ in names)
    numbers = _as_numbers(missing)
    columns = {name: _column(values, missing, numbers) for name, values in zip(names, cells, strict=True) if name}
    return Table(path, columns, [line for line, _ in body], "line")


def _rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The fields of each row that is not blank, and the line in which it begins."""
    width, line = 0, 1
    for row in reader:
        if row:
            width = width or len(row)
            if len(row) != width:
                raise DataError(f"{path}, line {line}: {len(row)} fields, expected {width} as in the header.")
            yield line, row
        line = reader.line_num + 1


def _not_utf8(path: Path) -> DataError:
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return DataError(
            f"{path}, line {line}: the byte {content[error.start]:#04x} is not UTF-8. Expected a CSV file in UTF-8, or "
            "a Parquet file with the suffix .parquet: save it as one of them."
        )
    return DataError(f"{path}: changed while it was read.")


def _header(path: Path, fields: Sequence[str]) -> list[str]:
    """The columns' names, empty for one without. Raises DataError for a name that two columns have."""
    names = [field.strip() for field in fields]
    places: dict[str, list[str]] = {}
    for number, name in enumerate(names, start=1):
        places.setdefault(name, []).append(str(number))
    nameless = places.pop("", [])
    if nameless:
        rank_zero_warn(f"{path}: column {', '.join(nameless)} has no name in the header and is left out")
    for name, numbers in places.items():
        if len(numbers) > 1:
            raise DataError(f"{path}: columns {' and '.join(numbers)} are both called {name!r}. Rename one.")
    return names


def _as_numbers(missing: Collection[str]) -> list[float]:
    """Those of the texts that are finite numbers."""
    parsed = pd.to_numeric(pd.Series(list(missing), dtype=object), errors="coerce").to_numpy(np.float64)
    return [float(number) for number in parsed[np.isfinite(parsed)]]


def _column(values: Collection[str], missing: Collection[str], numbers: Collection[float]) -> Texts:
    column = np.empty(len(values), dtype=object)
    column[:] = [None if (text := value.strip()) in missing else text for value in values]
    if numbers:  # -999 also stands as -999.0
        parsed = pd.to_numeric(pd.Series(column), errors="coerce").to_numpy(np.float64, na_value=np.nan)
        column[np.isin(parsed, list(numbers))] = None
    return column


def _read_parquet(path: Path, missing: Collection[str]) -> Table:
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise UsageError(f"{path}: reading Parquet needs pyarrow: pip install 'leyden[parquet]'.") from error
    except (ValueError, OSError) as error:  # what pyarrow raises derives from one or the other
        if getattr(error, "errno", None) is not None:
            raise
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(f"{path}: is not a Parquet file, or is damaged: {reason}.") from error
    if frame.index.names != [None]:
        frame = frame.reset_index()
    names = _header(path, [str(name) for name in frame.columns])
    columns = {name: _typed(path, name, frame.iloc[:, place], missing) for place, name in enumerate(names) if name}
    return Table(path, columns, range(1, len(frame) + 1), "row")


def _typed(path: Path, name: str, series: "pd.Series[Any]", missing: Collection[str]) -> Any:
    """A Parquet column: numbers as they are, everything else as text."""
    numbers = _as_numbers(missing)
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        if pd.api.types.is_integer_dtype(series) and not series.hasnans and not series.isin(numbers).any():
            return series.to_numpy(np.int64)
        values = series.to_numpy(np.float64, na_value=np.nan)
        return np.where(np.isin(values, numbers), np.nan, values)
    if nested := [value for value in series if isinstance(value, list | dict | bytes | np.ndarray)]:
        raise DataError(f"{path}: the column {name} holds {type(nested[0]).__name__}, expected numbers or text.")
    return _column(["" if pd.isna(value) else str(value) for value in series], missing, numbers)


def _text(value: float) -> str | None:
    if np.isnan(value):
        return None
    return str(int(value)) if float(value).is_integer() else str(value)
