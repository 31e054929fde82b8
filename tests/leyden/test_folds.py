"""Folds: each item validates once, shares are alike, groups stay together, and what cannot be is refused."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.errors import UsageError
from leyden.folds import Fold
from leyden.history import History
from leyden.main import main
from leyden_datamodules.fashion_mnist import FashionMNIST
from leyden_datamodules.image_folder import ImageFolder


@settings(deadline=None)
@given(items=st.integers(2, 60), data=st.data(), seed=st.integers(0, 5))
def test_each_item_validates_in_exactly_one_fold(items, data, seed):
    count = data.draw(st.integers(2, items))
    cuts = [Fold(number, count).cut(items, seed) for number in range(1, count + 1)]
    assert torch.cat([val for _, val in cuts]).sort().values.tolist() == list(range(items))
    for train, val in cuts:
        assert torch.cat((train, val)).sort().values.tolist() == list(range(items))
        assert len(val) in (items // count, -(-items // count))


def test_a_cut_depends_on_the_seed_alone():
    cuts = [Fold(1, 4).cut(40, seed)[1].tolist() for seed in (0, 0, 1)]
    assert cuts[0] == cuts[1] != cuts[2]


def test_every_fold_has_its_share_of_every_class():
    classes = torch.tensor([0] * 30 + [1] * 15 + [2] * 5)
    for number in range(1, 6):
        train, val = Fold(number, 5).cut(50, 0, strata=classes)
        assert classes[val].bincount().tolist() == [6, 3, 1]
        assert classes[train].bincount().tolist() == [24, 12, 4]


@pytest.mark.parametrize("strata", [None, [0, 1] * 20])
def test_a_group_stays_in_one_fold(strata):
    groups = [index // 4 for index in range(40)]
    cuts = [Fold(number, 5).cut(40, 3, strata, groups) for number in range(1, 6)]
    for train, val in cuts:
        assert not {groups[index] for index in train.tolist()} & {groups[index] for index in val.tolist()}
    assert sorted(index for _, val in cuts for index in val.tolist()) == list(range(40))


def test_all_keeps_nothing_for_validation():
    train, val = Fold.parse("all").cut(7, 0)
    assert train.tolist() == list(range(7))
    assert val.tolist() == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1/1", "nothing to train on"),
        ("0/5", "from 1 to 5"),
        ("6/5", "from 1 to 5"),
        ("3", "like 2/5"),
        ("-1/5", "like 2/5"),
        ("everything", "like 2/5"),
    ],
)
def test_what_is_no_fold_is_refused(text, found):
    with pytest.raises(UsageError, match=found):
        Fold.parse(text)


def test_folds_that_cannot_be_cut_are_refused():
    with pytest.raises(UsageError, match="5 folds cannot be cut from 4 items"):
        Fold(1, 5).cut(4, 0)
    with pytest.raises(UsageError, match="5 folds need 5 items of each class, but class 7 has 2"):
        Fold(1, 5).cut(22, 0, strata=[3] * 20 + [7] * 2)
    with pytest.raises(UsageError, match="3 folds cannot be cut from 2 groups"):
        Fold(1, 3).cut(10, 0, groups=[0] * 5 + [1] * 5)
    with pytest.raises(UsageError, match="would have no item of class b"):
        Fold(1, 3).cut(9, 0, strata=["a"] * 6 + ["b"] * 3, groups=[0, 0, 1, 1, 2, 2, 3, 3, 3])


@pytest.mark.parametrize("data", [FashionMNIST, ImageFolder])
def test_folds_of_pictures(data, tmp_path):
    arguments = data.fabricate(tmp_path)
    seen = []
    for number in range(1, 4):
        module = data(**arguments, fold=f"{number}/3")
        module.setup("fit")
        train, val = (module.splits[split] for split in ("train", "val"))
        pixels = [
            {source.__getitems__([i]).images.numpy().tobytes() for i in range(len(source))} for source in (train, val)
        ]
        assert not pixels[0] & pixels[1]
        shares = val.__getitems__(range(len(val))).labels.bincount()
        assert shares.max() - shares.min() <= 1
        seen.append(pixels[1])
        val.picture(0)
    whole = data(**arguments, fold="all")
    whole.setup("fit")
    everything = whole.splits["train"]
    assert set().union(*seen) == {everything.__getitems__([i]).images.numpy().tobytes() for i in range(len(everything))}
    assert "val" not in whole.splits
    assert whole.val_dataloader() == []


def test_an_order_that_mixes_two_sources_is_kept(tmp_path):
    module = ImageFolder(**ImageFolder.fabricate(tmp_path), fold="all")
    module.setup("fit")
    source = module.splits["train"]
    order = [len(source) - 1, 0, len(source) // 2, 1, len(source) - 2]
    batch = source.__getitems__(order)
    for position, index in enumerate(order):
        assert torch.equal(batch.images[position], source.__getitems__([index]).images[0])


def test_training_on_everything_keeps_the_last_checkpoint_and_validates_nothing(fit_options, capsys):
    assert main(["fit", *fit_options, "--data.fold", "all", "--experiment", "whole"]) == 0
    assert main(["validate", "runs/whole/1"]) == 2
    assert "nothing to validate on" in capsys.readouterr().err


def test_a_fold_is_validated_on_itself_again(fit_options):
    assert main(["fit", *fit_options, "--data.fold", "2/3", "--experiment", "fold"]) == 0
    assert main(["validate", "runs/fold/1", "--out", "again"]) == 0
    again = json.loads(Path("again", "metrics.json").read_text())
    assert again["val/loss"] == pytest.approx(History.read(Path("runs/fold/1")).at_last("val/loss"), rel=1e-6)
