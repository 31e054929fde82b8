"""The real house prices, from where LEYDEN_DATA says."""

import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from leyden.batches import TableFacts
from leyden.data import Part
from leyden_datamodules.house_prices import TRAIN, UNLABELLED, HousePrices
from leyden_datamodules.tabular_csv import TabularCSV

pytestmark = pytest.mark.skipif(HousePrices.locate() is None, reason="LEYDEN_DATA holds no house-prices")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(HousePrices().path() / TRAIN, keep_default_na=False, na_values=["NA"])


def ready(**options: Any) -> HousePrices:
    data = HousePrices(**options)
    data.prepare_data()
    data.setup("fit")
    return data


def split(data: HousePrices, name: str) -> tuple[Any, list[int]]:
    part = data.splits[name]
    assert isinstance(part, Part)
    return part.__getitems__(range(len(part))), part.chosen.tolist()


def test_counts_and_facts(table: pd.DataFrame) -> None:
    data = ready()
    data.setup("test")
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 1168, "val": 146, "test": 146}
    facts = data.facts
    assert isinstance(facts, TableFacts)
    batch, rows = split(data, "train")
    assert facts.target_mean == pytest.approx(np.log(table["SalePrice"])[rows].mean())
    np.testing.assert_array_equal(batch.targets.numpy(), table["SalePrice"].to_numpy()[rows])
    assert {"LotFrontage is missing", "MasVnrType=None", "MSSubClass=20", "OverallQual"} <= set(facts.feature_names)
    assert len(facts.numeric_columns) == 35
    numbers = [facts.feature_names.index(name) for name, *_ in facts.numeric_columns]
    means = batch.features[:, numbers].double().mean(0)
    torch.testing.assert_close(means, torch.zeros_like(means), atol=1e-6, rtol=0)  # missing ones are the mean
    assert batch.features.isfinite().all()


def test_it_is_an_ordinary_table() -> None:
    options: Any = {"target": "SalePrice", "id_column": "Id", "log_target": True, "categorical": ["MSSubClass"]}
    data = TabularCSV(root=str(HousePrices().path()), train_file=TRAIN, **options)
    data.setup("fit")
    assert data.facts == ready().facts


def test_houses_without_a_price_are_predicted_on() -> None:
    data = ready()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source = data.load_inputs([str(data.path() / UNLABELLED)])
    assert source.inputs == [str(number) for number in range(1461, 2920)]
    assert source.batch.targets.isnan().all()
    assert source.batch.features.isfinite().all()
    messages = [str(warning.message) for warning in caught]
    assert any("MSSubClass has categories that training did not see, in 1 rows: '150'" in text for text in messages)
    assert "GarageCars (1)" in messages[-1]


@pytest.mark.parametrize("unskew", [False, True])
def test_a_linear_model_errs_as_it_does_on_scikit_learns_features(table: pd.DataFrame, unskew: bool) -> None:
    names = [name for name in table if name not in ("Id", "SalePrice")]
    numeric = [name for name in names if pd.api.types.is_numeric_dtype(table[name]) and name != "MSSubClass"]
    categorical = [name for name in names if name not in numeric]
    inputs = table.astype(dict.fromkeys(categorical, object)).where(table.notna(), np.nan).astype({"MSSubClass": str})
    numbers = make_pipeline(StandardScaler(), SimpleImputer(strategy="constant", fill_value=0.0, add_indicator=True))
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(ColumnTransformer([("n", numbers, numeric), ("c", encoder, categorical)]), Ridge(10))
    log_price = np.log(table["SalePrice"]).to_numpy()
    ours, theirs = [], []
    for number in range(1, 6):
        data = ready(fold=f"{number}/5", test_fraction=0.0, unskew=unskew)
        (train, train_rows), (val, val_rows) = split(data, "train"), split(data, "val")
        assert sorted(train_rows + val_rows) == list(range(1460))
        ridge = Ridge(10).fit(train.features.double().numpy(), train.targets.double().log().numpy())
        wrong = ridge.predict(val.features.double().numpy()) - log_price[val_rows]
        ours.append(np.sqrt(np.mean(wrong**2)))
        model.fit(inputs.iloc[train_rows], log_price[train_rows])
        wrong = model.predict(inputs.iloc[val_rows]) - log_price[val_rows]
        theirs.append(np.sqrt(np.mean(wrong**2)))
    if unskew:
        assert np.mean(ours) < 0.95 * np.mean(theirs)
    else:
        assert ours == pytest.approx(theirs, rel=0.01)
    assert np.mean(ours) < 0.17, "the book's linear model"


def test_time() -> None:
    ready()
    start = time.process_time()
    ready()
    assert time.process_time() - start < 0.5
