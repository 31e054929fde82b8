"""A folder of pictures: its layouts, its splits, and what may be wrong with it."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leyden.batches import ImageFacts, LabelledImages
from leyden.errors import DataError, UsageError
from leyden_datamodules.image_folder import ImageFolder, stratified_parts

SPLITS = ("train", "val", "test")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return ImageFolder.fabricate(tmp_path / "pictures")


def add(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), (number, 100, 200)).save(path)


def files(data: ImageFolder, split: Any) -> list[str]:
    root = data.path()
    source: Any = data.load(split)
    return [str(Path(name).relative_to(root)) for name in source.inputs]


def test_fabricated_folder(arguments: dict[str, Any]) -> None:
    data = ImageFolder(**arguments)
    for stage in ("fit", "test"):
        data.setup(stage)
    assert data.facts == ImageFacts(3, (24, 24), ("disc", "frame", "stripes"))
    assert ImageFolder.batch_type() is LabelledImages
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 59, "val": 8, "test": 8}
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (8, 3, 24, 24)
    assert batch.images.dtype == torch.uint8
    transformed = data.transform(batch, training=False).images
    assert (float(transformed.min()), float(transformed.max())) >= (0.0, 0.5)
    assert float(transformed.max()) <= 1.0


def test_splits_are_disjoint_whole_and_alike_from_each_class(arguments: dict[str, Any]) -> None:
    data = ImageFolder(**arguments)
    parts = {split: files(data, split) for split in SPLITS}
    assert len(set().union(*parts.values())) == sum(map(len, parts.values())) == 75
    for split in ("val", "test"):
        counts = [sum(name.startswith(label) for name in parts[split]) for label in ("disc", "frame", "stripes")]
        assert sorted(counts) in ([2, 3, 3], [2, 2, 4])
    assert {split: files(ImageFolder(**arguments), split) for split in SPLITS} == parts
    assert files(ImageFolder(**arguments, seed=1), "val") != parts["val"]


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    val=st.floats(0.01, 0.45),
    test=st.floats(0.01, 0.45),
    seed=st.integers(0, 9),
)
def test_stratified_parts(counts: list[int], val: float, test: float, seed: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    parts = stratified_parts(labels, {"val": val, "test": test}, seed)
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(len(labels)))
    assert set(labels[parts["train"]].tolist()) == set(range(len(counts)))
    free = len(labels) - len(counts)
    val_count = min(round(val * len(labels)), free)
    assert len(parts["val"]) == val_count
    assert len(parts["test"]) == min(round(test * len(labels)), free - val_count)
    for label, count in enumerate(counts):  # alike from each class, up to rounding at both of its ends
        expected = val_count * (count - 1) / max(1, free)
        assert abs(int((labels[parts["val"]] == label).sum()) - expected) <= 1


def test_labels_and_pixels_are_the_files(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for label in ("b", "a"):
        for number in range(10):
            path = tmp_path / label / "deeper" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (9, 17, 3), np.uint8)).save(path)
    for grey, mode in ((False, "RGB"), (True, "L")):
        data = ImageFolder(root=str(tmp_path), image_size=8, grey=grey, batch_size=None)
        source: Any = data.load("train")
        images, labels = source.__getitems__(range(len(source)))
        for index, name in enumerate(source.inputs):
            with Image.open(name) as picture:
                expected = np.asarray(picture.convert(mode).resize((8, 8), Image.Resampling.BILINEAR))
                assert np.array_equal(np.asarray(source.picture(index)), np.asarray(picture))
            assert np.array_equal(images[index].permute(1, 2, 0).squeeze(2).numpy(), expected)
            assert data.describe().class_names[labels[index]] == Path(name).parts[-3]


def test_workers_and_cache_give_the_same(arguments: dict[str, Any]) -> None:
    def batches(**more: Any) -> list[LabelledImages]:
        data = ImageFolder(**arguments, **more)
        data.setup("fit")
        return [*data.train_dataloader(), *data.val_dataloader()]

    plain = batches()
    for other in (batches(num_workers=1), batches(cache=True), batches(on_error="skip")):
        assert len(plain) == len(other)
        for left, right in zip(plain, other, strict=True):
            assert torch.equal(left.images, right.images)
            assert torch.equal(left.labels, right.labels)


def test_layout_with_split_folders(tmp_path: Path) -> None:
    train = [f"train/{label}/{number}.png" for label in "ab" for number in range(5)]
    add(tmp_path, *train, "val/b/x.png", "val/a/y.png", "test/b/z.png")
    data = ImageFolder(root=str(tmp_path))
    assert data.describe().class_names == ("a", "b")
    assert files(data, "train") == train
    assert files(data, "val") == ["val/a/y.png", "val/b/x.png"]
    assert files(data, "test") == ["test/b/z.png"]
    source: Any = data.load("test")
    assert source.labels.tolist() == [1]


def test_missing_val_is_cut_from_train_and_missing_test_is_not(tmp_path: Path) -> None:
    train = [f"train/{label}/{number}.png" for label in "ab" for number in range(10)]
    add(tmp_path, *train)
    data = ImageFolder(root=str(tmp_path))
    assert sorted(files(data, "train") + files(data, "val")) == train
    assert len(files(data, "val")) == 2
    with pytest.raises(DataError, match="test: no such folder"):
        data.load("test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    add(tmp_path, *(f"{label}/{number}.png" for label in ("bus", "train") for number in range(10)))
    assert ImageFolder(root=str(tmp_path)).describe().class_names == ("bus", "train")


def test_hidden_files_and_other_suffixes_are_left_out(tmp_path: Path) -> None:
    add(tmp_path, *(f"{label}/{number}.png" for label in "ab" for number in range(10)), "a/._0.png", ".cache/x.png")
    (tmp_path / "a" / "notes.txt").touch()
    data = ImageFolder(root=str(tmp_path))
    assert data.describe().class_names == ("a", "b")
    assert sum(len(files(data, split)) for split in SPLITS) == 20


# what may be wrong


def test_root_is_needed() -> None:
    with pytest.raises(UsageError, match=r"--data\.root ROOT.*<class>"):
        ImageFolder().setup("fit")


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        ([], "train", "no class folders"),
        (["x.png"], "train", "no class folders"),
        (["a/x.png"], "train", "only one class folder, a"),
        (["train/a/x.png", "val/a/x.png"], "train", "only one class folder, a"),
        (["train/a/x.png", "train/b/x.png", "val/c/x.png"], "val", r"val/c: a class that train lacks; train has a, b"),
        (["train/a/x.png", "train/b/x.png", "val/x.png"], "val", "val: no pictures in class folders"),
        (["a/x.png", "b/x.png"], "val", "2 pictures are too few"),
    ],
)
def test_bad_layouts(tmp_path: Path, names: list[str], split: Any, message: str) -> None:
    add(tmp_path, *names)
    with pytest.raises(DataError, match=message) as caught:
        ImageFolder(root=str(tmp_path)).load(split)
    assert str(tmp_path) in str(caught.value)


def test_empty_class_folder(arguments: dict[str, Any]) -> None:
    (Path(arguments["root"]) / "nothing").mkdir()
    with pytest.raises(DataError, match="nothing: no pictures in this class folder"):
        ImageFolder(**arguments).setup("fit")


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        ImageFolder(root=str(tmp_path / "nowhere")).setup("fit")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"image_size": 0}, "image_size is 0"),
        ({"val_fraction": 0.0}, r"val_fraction is 0\.0"),
        ({"test_fraction": -0.1}, r"test_fraction -0\.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "sum below 1"),
    ],
)
def test_values_out_of_range(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ImageFolder(**bad)


@pytest.fixture
def damaged(arguments: dict[str, Any]) -> dict[str, Any]:
    """Two of the training pictures cannot be read."""
    root = Path(arguments["root"])
    chosen = files(ImageFolder(**arguments), "train")
    (root / chosen[0]).write_bytes((root / chosen[0]).read_bytes()[:300])
    (root / chosen[-1]).write_bytes(b"")
    return arguments


def test_unreadable_picture_stops_when_it_is_read(damaged: dict[str, Any]) -> None:
    data = ImageFolder(**damaged)
    data.setup("fit")
    name = data.splits["train"].inputs[0]  # type: ignore[attr-defined]
    with pytest.raises(DataError) as caught:
        data.splits["train"].__getitems__([1, 0])
    assert name in str(caught.value)
    with pytest.raises(DataError) as caught:
        ImageFolder(**damaged, cache=True).setup("fit")
    assert name in str(caught.value)


def test_unreadable_picture_is_named_by_a_worker(damaged: dict[str, Any]) -> None:
    data = ImageFolder(**damaged, num_workers=1)
    data.setup("fit")
    with pytest.raises(DataError, match=r"\.(jpg|png): (cannot be read|is not a picture)"):
        list(data.train_dataloader())


@pytest.mark.parametrize("cache", [False, True])
def test_unreadable_pictures_are_skipped_with_one_warning(damaged: dict[str, Any], cache: bool) -> None:
    plain = files(ImageFolder(**damaged), "train")
    data = ImageFolder(**damaged, on_error="skip", cache=cache)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for stage in ("fit", "validate", "test"):
            data.setup(stage)
    messages = [str(warning.message) for warning in caught if "ImageFolder" in str(warning.message)]
    assert len(messages) == 1
    assert "left out 2 unreadable pictures" in messages[0]
    assert plain[0] in messages[0]
    train: Any = data.splits["train"]
    assert len(train) == len(plain) - 2
    assert len(train.__getitems__(range(len(train))).labels) == len(plain) - 2
    if not cache:
        assert files(data, "train") == plain[1:-1]


def test_all_unreadable(tmp_path: Path) -> None:
    add(tmp_path, *(f"{label}/{number}.png" for label in "ab" for number in range(10)))
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"bad")
    with pytest.raises(DataError, match="none of 16 pictures"):
        ImageFolder(root=str(tmp_path), on_error="skip").load("train")
