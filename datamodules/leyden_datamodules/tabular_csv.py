"""A user's own table, in CSV or Parquet files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leyden.errors import DataError, UsageError
from leyden_datamodules._table_data import TableData, one_row_files

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")


class TabularCSV(TableData):
    """Your own table for regression: one number is learnt from all other columns, of numbers and of categories.

    `root` is the folder of the files, or the one file itself. CSV files have a header and are in UTF-8; Parquet files
    end in .parquet and need pyarrow. Without a file of test rows, these are cut from the training file.

    Args:
        train_file: name of the file to train and validate on, where root is a folder.
        test_file: name of the file to test on, with the target; beside the training file.
        **table_data: the arguments of every data module of tables.

    Raises:
        UsageError: without a root or a target, and for a value out of its range.
        DataError: for a file that cannot be used, naming file, line and column.
    """

    def __init__(self, train_file: str | None = None, test_file: str | None = None, **table_data: Any) -> None:
        super().__init__(**table_data)
        self.train_file = train_file
        self.test_file = test_file

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """A table of 120 rows with numbers, categories and gaps; the target is above 0."""
        root.mkdir(parents=True, exist_ok=True)
        _cars(120, seed=0).to_csv(root / "cars.csv", index=False, na_rep="NA")
        return {
            "root": str(root),
            "train_file": "cars.csv",
            "target": "price",
            "id_column": "plate",
            "test_fraction": 0.125,
            "val_fraction": 0.125,
            "batch_size": 16,
        }

    @classmethod
    def fabricate_inputs(cls, folder: Path) -> list[str]:
        """Five files of one row, without the target and the id."""
        return one_row_files(_cars(5, seed=1).drop(columns=["plate", "price"]), folder)

    def train_file_path(self) -> Path:
        """The file given as root, or by name in it."""
        if self.root is None:
            raise UsageError("TabularCSV needs the folder of your table, or its file: --data.root PATH.")
        root = Path(self.root).expanduser()
        if root.is_file():
            if self.train_file is not None:
                raise UsageError(f"{root} is a file already; leave out train_file, or give the folder as root.")
            return root
        if not root.is_dir():
            raise DataError(f"{root}: no such file or folder.")
        if self.train_file is None:
            found = ", ".join(sorted(path.name for path in root.iterdir() if path.suffix.lower() in SUFFIXES))
            raise UsageError(
                f"which file in {root} is to be trained on? --data.train_file NAME. It has {found or 'none'}."
            )
        return root / self.train_file

    def test_file_path(self) -> Path | None:
        """The file of test rows, where one is given."""
        return None if self.test_file is None else self.train_file_path().with_name(self.test_file)


def _cars(count: int, seed: int) -> pd.DataFrame:
    """Used cars, some without a mileage or a fuel."""
    generator = np.random.default_rng(seed)
    year, mileage = generator.integers(2000, 2025, count), generator.uniform(1, 200, count).round(2)
    fuel = generator.choice(["diesel", "electric", "petrol"], count)
    noise = generator.lognormal(0, 0.05, count)
    price = (300 + 20.0 * (year - 2000) - mileage + 100 * (fuel == "electric")) * noise
    cars = pd.DataFrame({"plate": [f"LD {number:03d}" for number in range(count)], "year": year, "mileage": mileage})
    cars["fuel"], cars["price"] = fuel, price.round(2)
    cars.loc[generator.random(count) < 0.1, "mileage"] = None
    cars.loc[generator.random(count) < 0.1, "fuel"] = None
    return cars
