"""A table as features: the same numbers as scikit-learn's, from the training rows alone, for any row that comes."""

import json
import math
import warnings
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import skew
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer, StandardScaler

from leyden.batches import LabelledRows, TableFacts
from leyden.data import Part
from leyden.errors import DataError, UsageError
from leyden_datamodules.tabular_csv import TabularCSV

SPLITS: tuple[Any, ...] = ("train", "val", "test")
NUMERIC, CATEGORICAL = ["width", "gain"], ["code", "colour", "rare"]


def frame(count: int = 60, seed: int = 0) -> pd.DataFrame:
    """Two columns of numbers, one with gaps and one skewed; codes; two columns of text, one with gaps; a target."""
    generator = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "name": [f"row {number}" for number in range(count)],
            "width": generator.normal(100, 20, count).round(3),
            "code": generator.choice([20, 60, 120], count),
            "gain": generator.lognormal(2, 1, count).round(3),
            "colour": generator.choice(["red", "green"], count),
            "rare": generator.choice(["a", "b", "c", "d", "e"], count, p=[0.5, 0.3, 0.1, 0.05, 0.05]),
            "price": generator.lognormal(3, 1, count).round(3),
        }
    )
    table.loc[generator.random(count) < 0.2, "width"] = np.nan
    table["colour"] = table["colour"].mask(generator.random(count) < 0.2)
    return table


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(table: pd.DataFrame | str, name: str = "table.csv") -> str:
        path = tmp_path / name
        text = table if isinstance(table, str) else table.to_csv(index=False, na_rep="NA")
        path.write_text(text, encoding="utf-8")
        return str(path)

    return written


@pytest.fixture
def root(write: Any) -> str:
    return str(write(frame()))


def module(root: str, **options: Any) -> TabularCSV:
    options = {"target": "price", "id_column": "name", "categorical": ["code"], **options}
    return TabularCSV(root=root, **options)


def ready(root: str, **options: Any) -> TabularCSV:
    data = module(root, **options)
    for stage in ("fit", "test"):
        data.setup(stage)
    return data


def facts_of(data: TabularCSV) -> TableFacts:
    assert isinstance(data.facts, TableFacts)
    return data.facts


def rows(source: Any) -> LabelledRows:
    batch = source.__getitems__(range(len(source)))
    assert isinstance(batch, LabelledRows)
    return batch


def indices(data: TabularCSV, split: str) -> list[int]:
    """Which rows of the file a split is."""
    part = data.splits[split]
    assert isinstance(part, Part)
    return part.chosen.tolist()


# features


def by_scikit_learn(train: pd.DataFrame, all_rows: pd.DataFrame, unskew: bool, min_frequency: int) -> dict[str, Any]:
    """The features by name, (n,) each; gaps in categories are a category `missing` of their own."""

    def clean(table: pd.DataFrame) -> pd.DataFrame:
        return table.astype(dict.fromkeys(CATEGORICAL, str)).where(table.notna(), np.nan).fillna({"colour": "gap"})

    def numbers(name: str) -> Any:
        powered = unskew and abs(skew(train[name].dropna())) > 0.75
        steps = [PowerTransformer(standardize=False)] if powered else []
        return make_pipeline(*steps, StandardScaler(), SimpleImputer(strategy="constant", fill_value=0.0))

    encoder = OneHotEncoder(
        sparse_output=False, handle_unknown="infrequent_if_exist", min_frequency=min_frequency
    ).set_output(transform="pandas")
    transformer = ColumnTransformer(
        [*((name, numbers(name), [name]) for name in NUMERIC), ("categories", encoder, CATEGORICAL)],
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    found = transformer.fit(clean(train)).transform(clean(all_rows))
    renamed = {name: values.to_numpy(np.float64) for name, values in found.items()}
    for column in CATEGORICAL:
        endings = {"infrequent_sklearn": f"{column} is rare", "gap": f"{column} is missing"}
        renamed = {
            endings.get(name.removeprefix(f"{column}_"), f"{column}={name.removeprefix(f'{column}_')}")
            if name.startswith(f"{column}_")
            else name: values
            for name, values in renamed.items()
        }
    return {**renamed, "width is missing": all_rows["width"].isna().to_numpy(np.float64)}


@pytest.mark.parametrize("unskew", [False, True])
@pytest.mark.parametrize("min_frequency", [1, 5])
def test_features_are_those_of_scikit_learn(root: str, unskew: bool, min_frequency: int) -> None:
    data = ready(root, unskew=unskew, min_frequency=min_frequency)
    names = facts_of(data).feature_names
    expected = by_scikit_learn(frame().iloc[indices(data, "train")], frame(), unskew, min_frequency)
    assert sorted(names) == sorted(expected)
    assert ("rare is rare" in names) == (min_frequency == 5)
    for split in SPLITS:
        features = rows(data.splits[split]).features
        assert features.dtype == torch.float32
        for name, found in zip(names, features.T, strict=True):
            np.testing.assert_allclose(found.numpy(), expected[name][indices(data, split)], rtol=1e-5, atol=1e-5)


def test_order_and_names_of_features(root: str) -> None:
    assert facts_of(ready(root)).feature_names == (
        *("width", "width is missing", "gain"),
        *("code=120", "code=20", "code=60", "colour=green", "colour=red", "colour is missing"),
        *("rare=a", "rare=b", "rare=c", "rare=d", "rare=e"),
    )


def test_a_column_of_numbers_is_no_category_unless_it_is_named(root: str) -> None:
    assert "code" in facts_of(ready(root, categorical=None)).feature_names


def test_parquet_gives_the_same(root: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame().to_parquet(tmp_path / "table.parquet", index=False)
    one, other = ready(root), ready(str(tmp_path / "table.parquet"))
    assert facts_of(one) == facts_of(other)
    for split in SPLITS:
        for mine, theirs in zip(rows(one.splits[split]), rows(other.splits[split]), strict=True):
            assert torch.equal(mine, theirs)


def test_columns_that_say_nothing_in_the_training_rows_are_left_out(write: Any) -> None:
    table = frame().assign(empty=np.nan, same=3.5, word="x", gap=1.0)
    table.loc[::3, "gap"] = np.nan
    with pytest.warns(UserWarning, match="left out") as caught:
        names = facts_of(ready(write(table))).feature_names
    assert [str(warning.message).partition(": ")[2] for warning in caught] == ["empty, same", "word"]
    assert not {"empty", "same", "word=x"} & set(names)
    assert "gap is missing" in names


def test_categories_are_those_of_the_training_rows(root: str, write: Any) -> None:
    row = indices(ready(root), "val")[0]
    table = frame()
    table.loc[row, "rare"] = "only here"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # by chance: nothing to warn of
        data = ready(write(table, "other.csv"))
        again = module(write(table, "other.csv"))
        again.trained_facts = data.facts
        again.setup("validate")
    assert "rare=only here" not in facts_of(data).feature_names
    is_rare = torch.tensor([name.startswith("rare=") for name in facts_of(data).feature_names])
    assert rows(data.splits["val"]).features[:, is_rare].sum(1).tolist() == [0, 1, 1, 1, 1, 1]


def test_a_transform_that_leaves_no_spread_is_not_made(write: Any) -> None:
    table = frame(400).assign(year=np.r_[np.full(300, 2008), np.full(70, 2009), np.full(30, 2010)])
    data = ready(write(table), unskew=True)
    year = rows(data.splits["train"]).features[:, facts_of(data).feature_names.index("year")]
    assert year.std(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_too_many_categories_are_warned_of(root: str) -> None:
    with pytest.warns(UserWarning, match=r"name has \d+ categories in \d+ training rows.*--data.drop '\[\"name\"\]'"):
        ready(root, id_column=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "name is rare" not in facts_of(ready(root, drop=["name"], id_column=None)).feature_names


# targets


def test_target_and_its_scale(root: str) -> None:
    prices = frame()["price"].to_numpy()
    for log_target in (False, True):
        data = ready(root, log_target=log_target)
        facts = facts_of(data)
        trained = np.log(prices) if log_target else prices
        trained = trained[indices(data, "train")]
        assert (facts.target_mean, facts.target_std) == (pytest.approx(trained.mean()), pytest.approx(trained.std()))
        assert (facts.target_name, facts.id_name, facts.log_target) == ("price", "name", log_target)
        assert facts.positive_target
        for split in SPLITS:
            targets = rows(data.splits[split]).targets
            assert targets.dtype == torch.float32
            np.testing.assert_array_equal(targets.numpy(), prices[indices(data, split)].astype(np.float32))


def test_negative_targets(write: Any) -> None:
    table = frame()
    table.loc[17, "price"] = -1.5
    root = write(table)
    assert not facts_of(ready(root)).positive_target
    with pytest.raises(DataError, match=r"table\.csv, line 19: price is -1\.5, which has no logarithm"):
        ready(root, log_target=True)


# splits


def test_splits_are_disjoint_whole_and_always_the_same(root: str) -> None:
    options = {"val_fraction": 0.2, "test_fraction": 0.3}
    data = ready(root, **options)
    parts = {split: indices(data, split) for split in SPLITS}
    assert {split: len(part) for split, part in parts.items()} == {"train": 30, "val": 12, "test": 18}
    assert sorted(chain(*parts.values())) == list(range(60))
    assert {split: indices(ready(root, **options), split) for split in SPLITS} == parts
    assert indices(ready(root, seed=1, **options), "test") != parts["test"]


def test_folds_share_all_but_the_test_rows(root: str) -> None:
    folds = [ready(root, fold=f"{number}/4") for number in range(1, 5)]
    tests = [indices(data, "test") for data in folds]
    assert all(test == tests[0] == indices(ready(root), "test") for test in tests)
    validated = sorted(chain(*(indices(data, "val") for data in folds)))
    assert sorted(validated + tests[0]) == list(range(60))
    for data in folds:
        assert sorted(indices(data, "train") + indices(data, "val")) == validated


def test_a_folds_statistics_are_those_of_its_training_rows(root: str) -> None:
    found = []
    for number in (1, 2):
        data = ready(root, fold=f"{number}/2", test_fraction=0.1)
        train = frame().iloc[indices(data, "train")]
        facts = facts_of(data)
        assert facts.target_mean == pytest.approx(train["price"].mean())
        name, mean, std, _, _ = facts.numeric_columns[0]
        assert (name, mean, std) == (
            "width",
            pytest.approx(train["width"].mean()),
            pytest.approx(train["width"].std(ddof=0)),
        )
        found.append(facts)
    assert found[0].target_mean != found[1].target_mean


def test_all_of_it(root: str) -> None:
    data = module(root, fold="all", test_fraction=0)
    data.setup("fit")
    assert indices(data, "train") == list(range(60))
    assert facts_of(data).target_mean == pytest.approx(frame()["price"].mean())
    with pytest.raises(UsageError, match="nothing to test on: test_fraction is 0"):
        data.setup("test")


def test_a_test_file(root: str, write: Any) -> None:
    write(frame(20, seed=1), "later.csv")
    data = ready(root, test_file="later.csv")
    assert len(data.splits["train"]) + len(data.splits["val"]) == 60
    found = rows(data.splits["test"])
    np.testing.assert_array_equal(found.targets.numpy(), frame(20, seed=1)["price"].to_numpy(np.float32))
    inputs = data.load_inputs([str(Path(root).with_name("later.csv"))])
    assert torch.equal(found.features, inputs.batch.features)


def test_what_other_files_hold_is_warned_of(root: str, write: Any) -> None:
    other = write(frame(20, seed=1).assign(rare="new"), "later.csv")
    with pytest.warns(UserWarning, match="rare has categories that training did not see, in 20 rows: 'new'"):
        ready(root, test_file="later.csv")
    data = module(other)
    data.trained_facts = facts_of(ready(root))
    with pytest.warns(UserWarning, match="rare has categories"):
        data.setup("validate")


def test_a_test_file_without_targets(root: str, write: Any) -> None:
    write(frame(20).drop(columns="price"), "later.csv")
    data = module(root, test_file="later.csv")
    data.setup("fit")
    with pytest.raises(DataError, match=r"later\.csv: lacks the column of the target: price\..*`predict` takes such"):
        data.setup("test")


def test_more_folds_than_rows(root: str) -> None:
    with pytest.raises(UsageError, match="61 folds cannot be cut from 60 items"):
        module(root, fold="1/61", test_fraction=0).setup("fit")


@pytest.mark.parametrize(("count", "fold"), [(3, None), (5, None), (2, "1/2")])
def test_too_few_rows(write: Any, count: int, fold: str | None) -> None:
    options = {"fold": fold, "test_fraction": 0} if fold else {"val_fraction": 0.4, "test_fraction": 0.4}
    if count == 3:
        options = {}
    with pytest.raises(DataError, match=f"{count} rows are too few"):
        module(write(frame(count)), **options).setup("fit")


# facts of a checkpoint


def test_facts_survive_being_written(root: str) -> None:
    facts = facts_of(ready(root, unskew=True, min_frequency=3))
    assert TableFacts.from_primitives(json.loads(json.dumps(facts.to_primitives()))) == facts


def test_a_checkpoints_statistics_are_used(root: str, write: Any) -> None:
    trained = facts_of(ready(root))
    other = module(write(frame(60, seed=5).iloc[:, ::-1], "other.csv"), seed=3)
    other.trained_facts = trained
    for stage in ("fit", "test"):
        other.setup(stage)
    assert other.facts == trained
    assert trained.conflicts(facts_of(other)) == []
    expected = by_scikit_learn(frame().iloc[indices(ready(root), "train")], frame(60, seed=5), False, 1)
    for name, found in zip(trained.feature_names, rows(other.splits["val"]).features.T, strict=True):
        np.testing.assert_allclose(found.numpy(), expected[name][indices(other, "val")], rtol=1e-5, atol=1e-5)


def test_another_scale_of_the_target_than_the_checkpoints_is_a_conflict(root: str) -> None:
    trained = facts_of(ready(root))
    data = module(root, log_target=True)
    data.trained_facts = trained
    data.setup("test")
    assert trained.conflicts(facts_of(data)) == ["log_target: False -> True"]


# predict


def predicting(root: str, **options: Any) -> TabularCSV:
    """As `predict` makes it: with a checkpoint's facts, and without the data set."""
    data = module("/nowhere", **options)
    data.facts = facts_of(ready(root))
    return data


def test_rows_that_are_predicted_go_the_same_way(root: str, write: Any) -> None:
    source = predicting(root).load_inputs([root])
    data = ready(root)
    for split in SPLITS:
        chosen = indices(data, split)
        assert torch.equal(rows(data.splits[split]).features, source.batch.features[chosen])
    assert source.inputs == [f"row {number}" for number in range(60)]
    np.testing.assert_array_equal(source.batch.targets.numpy(), frame()["price"].to_numpy(np.float32))


def test_columns_go_by_name(root: str, write: Any) -> None:
    more = frame().assign(extra="x").drop(columns="price").iloc[:, ::-1]
    source = predicting(root).load_inputs([write(more, "more.csv")])
    assert torch.equal(source.batch.features, predicting(root).load_inputs([root]).batch.features)
    assert source.batch.targets.isnan().all()


def test_names_of_rows(root: str, write: Any) -> None:
    table = frame(3)
    one = write(table.drop(columns="name").iloc[:1], "one.csv")
    two = write(table.drop(columns="name").iloc[1:], "two.csv")
    named = write(table.assign(name=["x", None, "z"]), "named.csv")
    source = predicting(root).load_inputs([two, one, named, one])
    assert source.inputs == [f"{two}:1", f"{two}:2", one, "x", f"{named}:2", "z"]
    assert torch.equal(source.batch.features[[2, 0, 1]], source.batch.features[3:])
    assert predicting(root, id_column=None).load_inputs([named]).inputs[0] == f"{named}:1"


def test_what_training_did_not_see_is_none_of_the_known_and_told_once(root: str, write: Any) -> None:
    changed = frame(8).assign(rare=["a", *"zzyxwv", "a"], gain=[np.nan, *range(7)])
    files = [write(changed.iloc[:4], "one.csv"), write(changed.iloc[4:], "two.csv")]
    with pytest.warns(UserWarning, match="training") as caught:
        source = predicting(root).load_inputs(files)
    first, second = (str(warning.message) for warning in caught)
    assert first.startswith("rare has categories that training did not see, in 6 rows: 'z', ")
    assert "gain (1)" in second
    names = facts_of(ready(root)).feature_names
    of_rare = source.batch.features[:, [name.startswith("rare=") for name in names]]
    assert of_rare.sum(1).tolist() == [1, 0, 0, 0, 0, 0, 0, 1]
    assert source.batch.features[0, names.index("gain")] == 0


def test_rare_and_unknown_categories_share_a_feature(root: str, write: Any) -> None:
    data = module("/nowhere")
    data.facts = facts_of(ready(root, min_frequency=5))
    with pytest.warns(UserWarning, match=r"saw seldom or never.*: rare \(2\)"):
        source = data.load_inputs([write(frame(3).assign(rare=["e", "never", "a"]), "new.csv")])
    place = data.facts.feature_names.index("rare is rare")
    assert source.batch.features[:, place].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.drop(columns=["gain", "rare"]),
            r"new\.csv: lacks 2 of the 5 columns that the network reads: gain, r",
        ),
        (
            lambda t: t.rename(columns={"colour": "color"}),
            r"lacks 1 of the 5 columns .*: colour\. Did you mean color\?",
        ),
        (lambda t: t.assign(gain=["1", "many", "2"]), r"new\.csv, line 3: gain is 'many', expected a finite number"),
        (lambda t: t.assign(gain=["1", "2", "inf"]), r"new\.csv, line 4: gain is 'inf', expected a finite number"),
        (lambda t: t.assign(gain=["3e38", "2", "1"]), r"new\.csv, line 2: gain is 3e38, too far"),
        (lambda t: t.assign(price=["1", "dear", "2"]), r"new\.csv, line 3: price is 'dear'"),
        (lambda t: t.iloc[:0], r"new\.csv: has a header and no rows"),
    ],
)
def test_bad_inputs(root: str, write: Any, change: Any, message: str) -> None:
    data = predicting(root)
    name, mean, _, *rest = data.facts.numeric_columns[1]  # type: ignore[union-attr, attr-defined]
    columns = (data.facts.numeric_columns[0], (name, mean, 0.01, *rest))  # type: ignore[union-attr, attr-defined]
    data.facts = replace(data.facts, numeric_columns=columns)  # type: ignore[type-var]
    with pytest.raises(DataError, match=message):
        data.load_inputs([write(change(frame(3)), "new.csv")])


# what may be wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_frequency": 0}, "min_frequency is 0"),
        ({"val_fraction": 0.0}, r"val_fraction is 0\.0"),
        ({"test_fraction": -0.1}, r"test_fraction -0\.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "sum below 1"),
        ({"separator": ", "}, "separator is ', '; it must be one character"),
        ({"separator": ""}, "separator is ''"),
    ],
)
def test_values_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TabularCSV(**options)


def test_tabs_may_be_written_as_a_person_would(write: Any) -> None:
    path = write(frame().to_csv(index=False, sep="\t"))
    assert len(ready(path, separator=r"\t").splits["train"]) == 48


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"root": None}, UsageError, r"--data\.root PATH"),
        ({"root": "nowhere"}, DataError, "nowhere: no such file or folder"),
        ({"target": None}, UsageError, r"--data\.target NAME\. .*table\.csv has name, width, code"),
        ({"target": "Prize"}, DataError, r"table\.csv: lacks the column of the target: Prize\. Did you mean price\?"),
        ({"id_column": "nam"}, DataError, r"lacks the column that id_column names: nam\. Did you mean name\?"),
        ({"drop": ["gains"]}, DataError, r"lacks the column that drop names: gains\. Did you mean gain\?"),
        ({"categorical": ["cod"]}, DataError, r"lacks the column that categorical names: cod\. Did you mean code\?"),
        ({"drop": ["price"]}, UsageError, "the target price cannot be"),
        ({"categorical": ["price"]}, UsageError, "the target price cannot be"),
        ({"id_column": "price"}, UsageError, "the target price cannot be"),
        ({"drop": ["width", "code", "gain", "colour", "rare"]}, DataError, "no column is left to learn price from"),
        ({"train_file": "x.csv"}, UsageError, r"table\.csv is a file already; leave out train_file"),
    ],
)
def test_wrong_options(root: str, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        module(**{"root": root, **options}).setup("fit")


def test_a_folder_needs_the_files_name(root: str) -> None:
    folder = str(Path(root).parent)
    with pytest.raises(UsageError, match=r"which file in .*--data\.train_file NAME\. It has table\.csv\."):
        module(folder).setup("fit")
    assert facts_of(ready(folder, train_file="table.csv")) == facts_of(ready(root))
    with pytest.raises(DataError, match=r"tabel\.csv: cannot be read: No such file"):
        module(folder, train_file="tabel.csv").setup("fit")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("width", "wide", r"table\.csv, line 9: width is 'wide', expected a finite number\. Correct it; or .*missing"),
        ("width", "inf", r"table\.csv, line 9: width is 'inf', expected a finite number"),
        ("price", "dear", r"table\.csv, line 9: price is 'dear', expected a finite number"),
        ("price", "-inf", r"table\.csv, line 9: price is '-inf', expected a finite number"),
        ("price", "NA", r"table\.csv, line 9: price is missing; every row must have its target"),
    ],
)
def test_a_bad_cell_is_named(write: Any, column: str, value: str, message: str) -> None:
    table = frame().astype({column: object})
    table.loc[7, column] = value
    with pytest.raises(DataError, match=message):
        module(write(table)).setup("fit")


def test_a_stray_text_may_mean_missing_or_a_category(write: Any) -> None:
    table = frame().astype({"gain": object})
    table.loc[7, "gain"] = "?"
    root = write(table)
    assert "gain is missing" in facts_of(ready(root, missing=["?"], seed=1)).feature_names
    with pytest.warns(UserWarning, match="gain has .* categories"):
        assert "gain=?" in facts_of(ready(root, categorical=["gain"], seed=1)).feature_names


def test_mostly_text_is_categories(write: Any) -> None:
    names = facts_of(ready(write(frame().assign(size=["1", "2", "M", "L"] * 15)))).feature_names
    assert {"size=1", "size=2", "size=L", "size=M"} <= set(names)
    with pytest.raises(DataError, match=r"line 5: size is 'M', expected a finite number \(23 more rows like it\)"):
        ready(write(frame().assign(size=["1", "2", "3", "M", "L"] * 12)))


def test_a_target_that_is_always_the_same(write: Any) -> None:
    with pytest.raises(DataError, match=r"table\.csv: price is the same in all 48 training rows"):
        module(write(frame().assign(price=3.0))).setup("fit")


def test_batches(root: str) -> None:
    data = ready(root, batch_size=20)
    batches = list(data.train_dataloader())
    assert [len(batch.targets) for batch in batches] == [20, 20, 8]
    assert all(type(batch) is LabelledRows for batch in batches)
    assert data.transform(batches[0], training=True) is batches[0]
    assert math.isfinite(sum(float(batch.features.sum()) for batch in batches))


def test_new_categories_that_count_as_rare_ones_are_counted(root: str, write: Any) -> None:
    write(frame(20, seed=1).assign(rare="new"), "later.csv")
    with pytest.warns(UserWarning, match=r"saw seldom or never.*rare \(20\)"):
        ready(root, test_file="later.csv", min_frequency=5)
