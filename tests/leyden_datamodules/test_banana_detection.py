"""The book's layout of detection data: splits, rows, folds, fetching, and what may be wrong."""

import hashlib
import io
import runpy
import shutil
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from leyden.batches import BoxedImages, DetectionFacts
from leyden.download import Download, NoSourceError
from leyden.errors import DataError, UsageError
from leyden_datamodules import banana_detection
from leyden_datamodules.banana_detection import ARCHIVE, BananaDetection

pytestmark = pytest.mark.usefixtures("nothing_else_here")
SPLITS = ("train", "val", "test")
HEADER = "img_name,label,xmin,ymin,xmax,ymax"
generate = runpy.run_path(str(Path(__file__).parents[1] / "generate_boxes.py"))["generate"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bananas"


@pytest.fixture
def arguments(root: Path) -> dict[str, Any]:
    return BananaDetection.fabricate(root)


def table(root: Path, part: str = "train") -> Path:
    return root / f"bananas_{part}" / "label.csv"


def names(source: Any) -> list[str]:
    return [Path(name).name for name in source.inputs]


def source_of(data: BananaDetection, split: Any) -> Any:
    return data.load(split)


def everything(source: Any) -> BoxedImages:
    batch: BoxedImages = source.__getitems__(range(len(source)))
    return batch


# what is read


def test_fabricated_set(arguments: dict[str, Any]) -> None:
    data = BananaDetection(**arguments)
    data.prepare_data()  # nothing to fetch
    for stage in ("fit", "test"):
        data.setup(stage)
    assert BananaDetection.batch_type() is BoxedImages
    assert data.facts == DetectionFacts(3, ("banana",))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 20, "val": 7, "test": 5}
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape == (4, 3, 64, 64)
    assert batch.boxes.shape == (4, 1, 4)
    assert batch.labels.tolist() == [[0]] * 4
    assert not batch.difficult.any()


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_are_tightly_around_the_shapes(arguments: dict[str, Any], split: str) -> None:
    batch = everything(source_of(BananaDetection(**arguments), split))
    for image, box in zip(batch.images, batch.boxes[:, 0], strict=True):
        rows, columns = (image[0] > 150).nonzero().unbind(1)  # the ground is darker
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == [float(side) for side in found]


def test_bananas_val_is_the_test_split(arguments: dict[str, Any], root: Path) -> None:
    parts = {split: source_of(BananaDetection(**arguments), split).inputs for split in SPLITS}
    assert parts["test"] == [str(root / "bananas_val" / "images" / f"{number}.png") for number in range(5)]
    train, val = set(parts["train"]), set(parts["val"])
    assert not train & val
    assert train | val == {str(root / "bananas_train" / "images" / f"{number}.png") for number in range(27)}
    assert source_of(BananaDetection(**arguments), "val").inputs == parts["val"]
    assert source_of(BananaDetection(**arguments, seed=1), "val").inputs != parts["val"]
    with pytest.raises(UsageError, match=r"val_size is 27, but .*bananas_train has 27 pictures"):
        BananaDetection(**{**arguments, "val_size": 27}).load("train")
    with pytest.raises(UsageError, match="val_size is 0"):
        BananaDetection(val_size=0)


def test_rows_are_read_as_people_write_them(arguments: dict[str, Any], root: Path) -> None:
    """Another order of columns and one more, a byte-order mark, blank lines, quotes, JPEG, rows that lie apart."""
    images = root / "bananas_val" / "images"
    with Image.open(images / "1.png") as picture:
        picture.save(images / "one, more.jpg")
    lines = ["label,xmin,ymin,xmax,ymax,by,img_name", "0,1,2,3,4.5,me,0.png", "", '0,5,6,7,8,"a, b","one, more.jpg"']
    table(root, "val").write_bytes(("\ufeff" + "\r\n".join([*lines, "0,9,10,64,64,me,0.png"])).encode())
    with pytest.warns(UserWarning, match="no row"):
        source = source_of(BananaDetection(**arguments), "test")
    assert names(source) == ["0.png", "one, more.jpg"]
    batch = everything(source)
    assert batch.boxes.tolist() == [[[1, 2, 3, 4.5], [9, 10, 64, 64]], [[5, 6, 7, 8], [0, 0, 0, 0]]]
    assert batch.labels.tolist() == [[0, 0], [0, -1]]


def test_pictures_of_any_kind(arguments: dict[str, Any], root: Path) -> None:
    images = root / "bananas_val" / "images"
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (64, 64), np.uint8)
    kinds = {
        "0.png": Image.fromarray(grey),
        "1.png": Image.fromarray(grey.astype(np.uint16) * 256),
        "2.png": Image.fromarray(np.dstack([grey] * 3)).quantize(8),
        "3.png": Image.fromarray(np.dstack([grey] * 4)),
    }
    for name, picture in kinds.items():
        picture.save(images / name)
    Image.fromarray(grey[:1, :1]).save(images / "4.png")
    rows = [f"{name},0,1,1,60,60" for name in kinds]
    table(root, "val").write_text("\n".join([HEADER, *rows, "4.png,0,0,0,1,1"]))
    batch = everything(source_of(BananaDetection(**arguments), "test"))
    assert batch.images.shape == (5, 3, 64, 64)
    assert torch.equal(batch.images[0], batch.images[1])
    assert batch.boxes[4].tolist() == [[0, 0, 64, 64]]


def test_many_boxes_and_classes(root: Path) -> None:
    """What tests/generate_boxes.py makes."""
    options = generate(root, "banana", pictures=40, boxes=4, classes=3, size=96, seed=0)
    assert options.startswith(f"--data BananaDetection --data.root {root} ")
    data = BananaDetection(root=str(root), classes=["disc", "bar", "wedge"], val_size=4, image_size=(96, 96))
    data.setup("fit")
    data.setup("test")
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 32, "val": 4, "test": 4}
    batch = everything(data.splits["train"])
    assert batch.boxes.shape[1] == 4
    assert set(batch.labels.unique().tolist()) == {-1, 0, 1, 2}
    again = root.with_name("again")
    generate(again, "banana", pictures=40, boxes=4, classes=3, size=96, seed=0)
    assert table(root).read_bytes() == table(again).read_bytes()
    with pytest.raises(DataError, match=r"label\.csv, line \d+: label is [12], expected 0: banana"):
        BananaDetection(root=str(root), val_size=4).load("test")


def test_folds(arguments: dict[str, Any]) -> None:
    validated: list[str] = []
    for number in (1, 2, 3):
        data = BananaDetection(**arguments, fold=f"{number}/3")
        data.setup("fit")
        train: Any = data.splits["train"]
        val: Any = data.splits["val"]
        assert train.augmentation is not None
        assert val.augmentation is None
        assert not set(train.inputs) & set(val.inputs)
        assert len(train) + len(val) == 27
        validated += val.inputs
    assert len(set(validated)) == len(validated) == 27
    data = BananaDetection(**arguments, fold="all")
    data.setup("fit")
    assert len(data.splits["train"]) == 27


# what may be wrong

ROWS = {
    "0.png,1,1,1,9,9": r"line 3: label is 1, expected 0: banana\. --data\.classes names others",
    "0.png,-1,1,1,9,9": "line 3: label is -1",
    "0.png,0.5,1,1,9,9": r"line 3: label is 0\.5",
    "0.png,banana,1,1,9,9": "line 3: label is 'banana', expected a number",
    "0.png,0,,1,9,9": "line 3: xmin is '', expected a number",
    "0.png,0,1,one,9,9": "line 3: ymin is 'one', expected a number",
    "0.png,0,1,1,nan,9": "line 3: xmax is 'nan', expected a number",
    "0.png,0,1,1,9,inf": "line 3: ymax is 'inf', expected a number",
    "0.png,0,1,1,9": "line 3: has 5 fields, expected 6",
    "0.png,0,1,1,9,9,9": "line 3: has 7 fields, expected 6",
    'x".png,0,1,1,9,"9': r"line 3: is no CSV",
    "gone.png,0,1,1,9,9": r"line 3: the image .*gone\.png does not exist",
    ",0,1,1,9,9": r"line 3: the image .*images does not exist",
    "0.png,0,1,1,65,9": r"line 3: box 1 \(banana 1 1 65 9\) reaches beyond its picture, which is 64 x 64",
    "1.png,0,1,1,9,9\n1.png,0,9,1,1,9": r"line 4: box 2 \(banana 9 1 1 9\) has its corners exchanged",
    "0.png,0,1,1,9,1": r"line 3: box 1 \(banana 1 1 9 1\) has no area",
}


@pytest.mark.filterwarnings("ignore:.*no row of label.csv")
@pytest.mark.parametrize("row", ROWS)
def test_bad_rows(arguments: dict[str, Any], root: Path, row: str) -> None:
    table(root, "val").write_text(f"{HEADER}\n2.png,0,1,1,9,9\n{row}\n")
    with pytest.raises(DataError, match=rf"bananas_val.label\.csv, {ROWS[row]}") as caught:
        BananaDetection(**arguments).load("test")
    assert "\n" not in str(caught.value)


TABLES = {
    b"": "line 1: lacks img_name, label, xmin, ymin, xmax, ymax; .* found nothing",
    b"img_name,label,xmin,ymin,xmax\n": "line 1: lacks ymax; expected the columns img_name,",
    b"0.png,0,1,1,9,9\n": "line 1: lacks img_name, .* found 0.png,0,1,1,9,9",
    f"{HEADER}\n\n".encode(): "has no rows",
    f"{HEADER}\n0.png,0,1,1,9,\xff".encode("latin-1"): "the byte .* is not UTF-8",
}


@pytest.mark.parametrize("content", TABLES)
def test_bad_tables(arguments: dict[str, Any], root: Path, content: bytes) -> None:
    table(root).write_bytes(content)
    with pytest.raises(DataError, match=rf"bananas_train.label\.csv.*{TABLES[content]}"):
        BananaDetection(**arguments).load("train")


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_that_no_row_names(arguments: dict[str, Any], root: Path, split: Any) -> None:
    part = "train" if split == "train" else "val"
    lines = table(root, part).read_text().splitlines()
    table(root, part).write_text("\n".join([lines[0], *lines[3:]]))
    data = BananaDetection(**arguments)
    with pytest.warns(
        UserWarning, match=r"images: no row of label\.csv names 2 of its pictures, such as 0\.png"
    ) as seen:
        data.setup("fit" if split == "train" else "test")
    assert len([each for each in seen if "no row" in str(each.message)]) == 1
    assert "0.png" not in names(data.splits[split])


def test_what_is_skipped_is_counted(arguments: dict[str, Any], root: Path) -> None:
    """A picture that is gone and a box that is none, in one warning; a picture without its box stays."""
    lines = table(root, "val").read_text().splitlines()
    lines[1], lines[2] = "gone.png,0,1,1,9,9", "1.png,0,9,9,9,9"
    table(root, "val").write_text("\n".join(lines))
    data = BananaDetection(**arguments, on_error="skip")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        data.setup("test")
    [message] = [str(each.message) for each in seen if "left out" in str(each.message)]
    assert "left out 1 scenes, left out 1 boxes that cannot be used" in message
    assert "line 2" in message
    assert names(data.splits["test"]) == ["1.png", "2.png", "3.png", "4.png"]
    assert everything(data.splits["test"]).labels.tolist() == [[-1], [0], [0], [0]]


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("name", ["bananas", "banana-detection"])
def test_missing_tables(tmp_path: Path, part: str, name: str) -> None:
    root = tmp_path / name
    arguments = BananaDetection.fabricate(root)
    table(root, part).unlink()
    data = BananaDetection(**arguments)
    data.prepare_data()
    place = rf"bananas_{part}.label\.csv"
    expected = rf"{place}: no such file\. BananaDetection reads .* Only a folder called banana-detection"
    if name == "banana-detection":
        expected = rf"(?s){place}: no such file.*banana-detection.banana-detection\.zip"
    with pytest.raises(DataError, match=expected):
        data.load("train" if part == "train" else "test")


# fetching


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that puts a zip of these names and contents where the download would; the default is a good one."""
    BananaDetection.fabricate(tmp_path / "made")

    def put(members: dict[str, bytes] | None = None) -> Path:
        if members is None:
            files = (path for path in (tmp_path / "made").rglob("*") if path.is_file())
            members = {f"banana-detection/{path.relative_to(tmp_path / 'made')}": path.read_bytes() for path in files}
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        root = tmp_path / "banana-detection"
        root.mkdir(exist_ok=True)
        (root / ARCHIVE.name).write_bytes(content.getvalue())
        checksum = f"sha1:{hashlib.sha1(content.getvalue()).hexdigest()}"
        monkeypatch.setattr(banana_detection, "ARCHIVE", replace(ARCHIVE, checksum=checksum, urls=()))
        return root

    return put


def test_the_archive_is_the_books() -> None:
    url = "http://d2l-data.s3-accelerate.amazonaws.com/banana-detection.zip"
    assert Download("banana-detection.zip", (url,), "sha1:5de26c8fce5ccdea9f91267273464dc968d20d72") == ARCHIVE


def test_an_archive_is_unpacked_where_the_data_is_missing(archive: Any) -> None:
    root = archive()
    data = BananaDetection(root=str(root), val_size=7)
    data.prepare_data()
    assert [len(source_of(data, split)) for split in SPLITS] == [20, 7, 5]
    assert sorted(path.name for path in root.iterdir()) == ["banana-detection.zip", "bananas_train", "bananas_val"]
    (root / ARCHIVE.name).unlink()
    data.prepare_data()  # it is there: nothing is fetched again


@pytest.mark.parametrize("gone", ["bananas_train", "bananas_val"])
def test_half_of_the_data_is_made_whole(archive: Any, gone: str) -> None:
    root = archive()
    data = BananaDetection(root=str(root), val_size=7)
    data.prepare_data()
    shutil.rmtree(root / gone)
    data.prepare_data()
    assert [len(source_of(data, split)) for split in SPLITS] == [20, 7, 5]


BAD_ARCHIVES = {
    "../outside.txt": r"'\.\./outside\.txt' would be written outside",
    "banana-detection/../../outside.txt": "would be written outside",
    "/outside.txt": "would be written outside",
    "..\\outside.txt": "would be written outside",
    "other/file.txt": r"cannot be unpacked to .*banana-detection: No such file",
}


@pytest.mark.parametrize("member", BAD_ARCHIVES)
def test_bad_archives(archive: Any, tmp_path: Path, member: str) -> None:
    root = archive({member: b"x"})
    with pytest.raises(DataError, match=rf"banana-detection\.zip.*{BAD_ARCHIVES[member]}"):
        BananaDetection(root=str(root)).prepare_data()
    assert [path.name for path in root.iterdir()] == ["banana-detection.zip"]
    assert not list(tmp_path.rglob("*outside*"))


def test_an_archive_that_is_cut_off(archive: Any) -> None:
    root = archive()
    path = root / ARCHIVE.name
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(NoSourceError, match="wrong sha1"):
        BananaDetection(root=str(root)).prepare_data()
    assert [each.name for each in root.iterdir()] == ["banana-detection.zip"]


def test_offline_it_says_where_to_put_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9/banana-detection.zip"
    monkeypatch.setattr(banana_detection, "ARCHIVE", replace(ARCHIVE, urls=(url,)))
    root = tmp_path / "banana-detection"
    with pytest.raises(NoSourceError) as caught:
        BananaDetection(root=str(root)).prepare_data()
    assert url in str(caught.value)
    assert str(root / "banana-detection.zip") in str(caught.value)
    assert list(root.iterdir()) == []


def test_nothing_is_downloaded_into_a_folder_of_any_name(tmp_path: Path) -> None:
    data = BananaDetection(root=str(tmp_path / "fruit"))
    data.prepare_data()
    with pytest.raises(DataError, match=r"fruit.bananas_train.label\.csv: no such file.*Only a folder called"):
        data.setup("fit")
    assert not (tmp_path / "fruit").exists()
