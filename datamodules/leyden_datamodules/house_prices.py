"""The house prices of Ames, Iowa: reading, verifying and, where they are missing, fetching them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leyden.download import Attempt, Download, NoSourceError, fetch
from leyden.errors import DataError
from leyden_datamodules._table_data import TableData, one_row_files
from leyden_datamodules._tables import Table

TRAIN, UNLABELLED = "kaggle_house_pred_train.csv", "kaggle_house_pred_test.csv"
SHA1 = {TRAIN: "585e9cc93e70b39160e7921475f9bcd7d31219ce", UNLABELLED: "fa19780a7b011d9b009e8bff8e99922a8ee2eb90"}
MIRROR = "http://d2l-data.s3-accelerate.amazonaws.com/"


class HousePrices(TableData):
    """House prices in Ames, Iowa: 1,460 sales with 79 columns, to learn the price from (De Cock 2011).

    Kaggle's competition, as Dive into Deep Learning distributes it. The 1,459 further houses of its test file have no
    price: test rows are cut from the others, and `predict` takes that file.

    Args:
        log_target: learn the logarithm of the price; the competition counts its errors.
        verify: check the file against its checksum. false reads another file of the same name, with at least the
            columns Id, MSSubClass and SalePrice, and fetches nothing.
        **table_data: the arguments of every data module of tables.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a missing, damaged or wrong file, naming it.
    """

    folder = "house-prices"

    def __init__(self, log_target: bool = True, verify: bool = True, **table_data: Any) -> None:
        super().__init__(
            target="SalePrice", id_column="Id", categorical=["MSSubClass"], log_target=log_target, **table_data
        )
        self.verify = verify

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """120 sales with a few of the columns."""
        root.mkdir(parents=True, exist_ok=True)
        _houses(120, seed=0).to_csv(root / TRAIN, index=False, na_rep="NA")
        return {"root": str(root), "verify": False, "test_fraction": 0.125, "val_fraction": 0.125, "batch_size": 16}

    @classmethod
    def fabricate_inputs(cls, folder: Path) -> list[str]:
        """Five files of one house, without price and Id."""
        return one_row_files(_houses(5, seed=1).drop(columns=["Id", "SalePrice"]), folder)

    def fetch(self) -> None:
        """Both files from the book's mirror, where the training file is missing. Raises NoSourceError."""
        if self.train_file_path().is_file():
            return
        if not self.verify:
            tried = [Attempt(str(self.path().absolute()), "does not hold the file")]
            raise NoSourceError("the house prices", tried, [self.path() / TRAIN])
        for name in SHA1:
            fetch(_download(name), self.path())

    def train_file_path(self) -> Path:
        """The sales with their prices."""
        return self.path() / TRAIN

    def _read(self, path: Path, advice: str = "") -> Table:
        if self.verify and path.is_file() and (wrong := _download(path.name).mismatch(path)):
            raise DataError(
                f"{path}: is not the house prices file: {wrong}. Remove it, or put a good copy in its place. "
                "(--data.verify false reads other data with the same columns.)"
            )
        return super()._read(path, advice)


def _download(name: str) -> Download:
    return Download(name, (MIRROR + name,), f"sha1:{SHA1[name]}")


def _houses(count: int, seed: int) -> pd.DataFrame:
    """Some of the columns, with the names, kinds and gaps that they have in the real file."""
    generator = np.random.default_rng(seed)
    area, quality = generator.integers(2000, 20000, count), generator.integers(1, 11, count)
    columns = {
        "Id": np.arange(1, count + 1),
        "MSSubClass": generator.choice([20, 60, 120], count),
        "MSZoning": generator.choice(["RL", "RM"], count),
        "LotFrontage": generator.integers(20, 150, count),
        "LotArea": area,
        "Alley": "Pave",
        "OverallQual": quality,
        "MasVnrType": generator.choice(["BrkFace", "None"], count),
        "SalePrice": 50000 + 5 * area + 20000 * quality,
    }
    houses = pd.DataFrame(columns)
    houses["LotFrontage"] = houses["LotFrontage"].mask(generator.random(count) < 0.2)
    houses["Alley"] = houses["Alley"].mask(generator.random(count) < 0.9)
    return houses
