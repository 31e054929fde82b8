"""A linear function with noise: what is drawn is what the arguments say."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from leyden.batches import LabelledRows, TableFacts
from leyden.data import InMemory
from leyden.errors import DataError, UsageError
from leyden_datamodules.synthetic_regression import SyntheticRegression


def drawn(split: Any = "train", **options: Any) -> LabelledRows:
    data = SyntheticRegression(**options)
    source = data.load(split)
    assert isinstance(source, InMemory)
    batch: LabelledRows = source.batch
    return batch


def test_sizes_and_types() -> None:
    data = SyntheticRegression(rows=50, val_rows=20, test_rows=10, batch_size=15)
    for stage in ("fit", "test"):
        data.setup(stage)
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 50, "val": 20, "test": 10}
    batches = list(data.train_dataloader())
    assert [tuple(batch.features.shape) for batch in batches] == [(15, 2)] * 3 + [(5, 2)]
    assert {batch.features.dtype for batch in batches} | {batch.targets.dtype for batch in batches} == {torch.float32}
    assert data.transform(batches[0], training=True) is batches[0]


def test_least_squares_finds_the_books_weights() -> None:
    features, targets = (tensor.double() for tensor in drawn(rows=5000))
    ones = torch.ones(len(features), 1, dtype=torch.float64)
    solved = torch.linalg.lstsq(torch.cat((features, ones), 1), targets[:, None])
    assert solved.solution[:, 0].tolist() == pytest.approx([2.0, -3.4, 4.2], abs=4 * 0.01 / math.sqrt(5000))
    left = targets - torch.cat((features, ones), 1) @ solved.solution[:, 0]
    assert left.std().item() == pytest.approx(0.01, rel=0.05)
    assert abs(left.mean().item()) < 1e-9


def test_features_are_of_the_standard_normal_distribution() -> None:
    features = drawn(rows=20000, weights=[1.0, 2.0, 3.0]).features
    assert features.mean(0).tolist() == pytest.approx([0, 0, 0], abs=0.03)
    torch.testing.assert_close(features.T.cov(), torch.eye(3), atol=0.04, rtol=0)


def test_without_noise_the_function_is_exact() -> None:
    features, targets = drawn("val", weights=[0.5], bias=-1.0, noise=0.0)
    torch.testing.assert_close(targets, 0.5 * features[:, 0] - 1)


def test_draws_depend_on_seed_and_split_alone() -> None:
    for split in ("train", "val", "test"):
        assert torch.equal(drawn(split).features, drawn(split, bias=0.0, noise=1.0).features)
        assert torch.equal(drawn(split).targets, drawn(split).targets)
    firsts = [drawn(split, seed=seed).features[0, 0].item() for split in ("train", "val", "test") for seed in range(3)]
    assert len(set(firsts)) == 9
    assert torch.equal(drawn("val", rows=5).features, drawn("val").features)


def test_folds() -> None:
    validated = []
    for number in (1, 2, 3):
        data = SyntheticRegression(rows=20, val_rows=10, fold=f"{number}/3")
        data.setup("fit")
        assert len(data.splits["train"]) == 20
        validated.append(data.splits["val"].__getitems__(range(10)).targets)
    both = torch.cat([drawn("train", rows=20).targets, drawn("val", val_rows=10).targets])
    assert torch.equal(torch.cat(validated).sort().values, both.sort().values)


def test_the_network_learns_the_target_itself() -> None:
    facts = SyntheticRegression(weights=[1.0, 2.0, 3.0]).describe()
    assert facts.feature_names == ("x1", "x2", "x3")
    assert (facts.target_mean, facts.target_std, facts.log_target) == (0.0, 1.0, False)


def test_predict_takes_numbers_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("y,x2,x1\n7,-1.5,100\nNA,0,1e-3\n")
    data = SyntheticRegression()
    data.facts = data.describe()
    source = data.load_inputs([str(tmp_path / "points.csv")])
    torch.testing.assert_close(source.batch.features, torch.tensor([[100, -1.5], [1e-3, 0]]), atol=0, rtol=0)
    torch.testing.assert_close(source.batch.targets, torch.tensor([7, torch.nan]), equal_nan=True)
    assert source.inputs == [f"{tmp_path}/points.csv:1", f"{tmp_path}/points.csv:2"]


def test_predict_needs_all_features(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("x1\n1\n")
    data = SyntheticRegression()
    with pytest.raises(DataError, match=r"points\.csv: lacks 1 of the 2 columns that the network reads: x2\."):
        data.load_inputs([str(tmp_path / "points.csv")])


def test_another_number_of_features_is_a_conflict() -> None:
    two: TableFacts = SyntheticRegression().describe()
    assert two.conflicts(SyntheticRegression(weights=[1.0, 1.0], bias=0.0).describe()) == []
    assert two.conflicts(SyntheticRegression(weights=[1.0]).describe()) == ["features that it lacks: x2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": []}, r"weights are \[\]"),
        ({"weights": [1.0, math.nan]}, "all finite"),
        ({"bias": math.inf}, "bias inf"),
        ({"noise": -0.1}, r"noise is -0\.1"),
        ({"rows": 0}, "rows is 0"),
        ({"val_rows": 0}, "val_rows is 0"),
        ({"test_rows": -1}, "test_rows is -1"),
    ],
)
def test_values_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SyntheticRegression(**options)
