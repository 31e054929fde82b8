"""Reading, verifying, splitting and fetching Fashion-MNIST, on a fabricated one in the same format."""

import gzip
import hashlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import datasets

from leyden.batches import ImageFacts, LabelledImages
from leyden.download import Attempt, Download, NoSourceError
from leyden.errors import DataError, UsageError
from leyden_datamodules import fashion_mnist
from leyden_datamodules.fashion_mnist import FILES, FashionMNIST

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


@pytest.fixture(autouse=True)
def nothing_else_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other copy of the data set is in reach, and no network."""
    monkeypatch.delenv("LEYDEN_DATA", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [])
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "FashionMNIST"


@pytest.fixture
def arguments(root: Path) -> dict[str, Any]:
    return FashionMNIST.fabricate(root)


@pytest.fixture
def tiny_is_real(root: Path, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The fabricated files have the right checksums."""
    for name in FILES:
        md5 = hashlib.md5(gzip.decompress((root / f"{name}.gz").read_bytes())).hexdigest()
        monkeypatch.setitem(FILES, name, md5)


def rewrite(root: Path, name: str, content: bytes) -> None:
    (root / f"{name}.gz").write_bytes(gzip.compress(content))


def raw(root: Path, name: str) -> bytes:
    return gzip.decompress((root / f"{name}.gz").read_bytes())


def everything(source: Any) -> LabelledImages:
    return source.__getitems__(range(len(source)))


def test_splits_are_the_files_contents(arguments: dict[str, Any], root: Path) -> None:
    data = FashionMNIST(**arguments)
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 75, "val": 21, "test": 27}
    test = everything(data.splits["test"])
    assert test.images.dtype == torch.uint8
    assert test.labels.dtype == torch.int64
    assert test.images.numpy().tobytes() == raw(root, TEST_IMAGES)[16:]
    assert bytes(test.labels.tolist()) == raw(root, TEST_LABELS)[8:]
    # Train and val together are the training file, each image once, with its label.
    pixels = np.frombuffer(raw(root, TRAIN_IMAGES)[16:], np.uint8).reshape(96, 1, 28, 28)
    expected = sorted(zip((image.tobytes() for image in pixels), raw(root, TRAIN_LABELS)[8:], strict=True))
    parts = [everything(data.splits[name]) for name in ("train", "val")]
    found = [
        (image.numpy().tobytes(), int(label))
        for part in parts
        for image, label in zip(part.images, part.labels, strict=True)
    ]
    assert sorted(found) == expected
    assert len(set(found)) == 96


def test_torchvision_reads_the_same(arguments: dict[str, Any], root: Path) -> None:
    for name in FILES:
        target = root.parent / "tv" / "FashionMNIST" / "raw" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(raw(root, name))
    theirs = datasets.FashionMNIST(str(root.parent / "tv"), train=False)
    ours = everything(FashionMNIST(**arguments).load("test"))
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)
    # and we read its layout
    laid_out = FashionMNIST(**{**arguments, "root": str(root.parent / "tv")})
    assert torch.equal(everything(laid_out.load("test")).images, ours.images)


def test_split_depends_on_the_seed_alone(arguments: dict[str, Any]) -> None:
    def val_images(seed: int, val_size: int = 21) -> torch.Tensor:
        return everything(FashionMNIST(**{**arguments, "val_size": val_size}, seed=seed).load("val")).images

    assert torch.equal(val_images(3), val_images(3))
    assert not torch.equal(val_images(3), val_images(4))
    assert len(val_images(3, val_size=1)) == 1


def test_one_copy_is_held(arguments: dict[str, Any]) -> None:
    data = FashionMNIST(**arguments)
    data.setup("fit")
    train, val = data.splits["train"], data.splits["val"]
    assert train.data is val.data  # type: ignore[attr-defined]


def test_pictures(arguments: dict[str, Any]) -> None:
    data = FashionMNIST(**arguments)
    for split in ("train", "val", "test"):
        source: Any = data.load(split)  # type: ignore[arg-type]
        picture = source.picture(5)
        assert picture.size == (28, 28)
        assert np.array_equal(np.asarray(picture), source.__getitems__([5]).images[0, 0].numpy())


def test_facts() -> None:
    facts = FashionMNIST().describe()
    assert facts == ImageFacts(1, (28, 28), tuple(datasets.FashionMNIST.classes))
    assert FashionMNIST(resize=96).describe().image_size == (96, 96)
    assert FashionMNIST.batch_type() is LabelledImages


def test_loaders_give_transformed_batches(arguments: dict[str, Any]) -> None:
    data = FashionMNIST(**arguments, resize=32)
    data.setup("fit")
    sizes = []
    for batch in data.train_dataloader():
        sizes.append(len(batch.labels))
        images, labels = data.transform(batch, training=True)
        assert images.shape == (len(labels), 1, 32, 32)
    assert sizes == [16, 16, 16, 16, 11]
    loader = data.val_dataloader()
    assert isinstance(loader, DataLoader)
    assert sum(len(batch.labels) for batch in loader) == 21


def test_patterns_can_be_learned(arguments: dict[str, Any]) -> None:
    data = FashionMNIST(**arguments)
    train, test = (everything(data.load(split)) for split in ("train", "test"))  # type: ignore[arg-type]
    means = torch.stack([train.images[train.labels == label].float().mean(0).flatten() for label in range(10)])
    nearest = torch.cdist(test.images.flatten(1).float(), means).argmin(1)
    assert (nearest == test.labels).float().mean() > 0.9


# verifying


def test_wrong_checksum(root: Path, arguments: dict[str, Any]) -> None:
    found = hashlib.md5(raw(root, TRAIN_IMAGES)).hexdigest()
    with pytest.raises(DataError) as caught:
        FashionMNIST(root=str(root)).load("train")
    assert all(part in str(caught.value) for part in (TRAIN_IMAGES, found, FILES[TRAIN_IMAGES], "Remove it", "verify"))


@pytest.mark.usefixtures("tiny_is_real")
def test_checksum_is_of_the_decompressed_bytes(root: Path) -> None:
    for name, level in zip(FILES, (1, 9, 5, 6), strict=True):
        content = raw(root, name)
        (root / f"{name}.gz").write_bytes(gzip.compress(content, level))
    data = FashionMNIST(root=str(root), val_size=21)
    for split in ("train", "val", "test"):
        assert len(data.load(split))  # type: ignore[arg-type]


@pytest.mark.usefixtures("tiny_is_real")
def test_one_wrong_pixel_is_found(root: Path) -> None:
    content = bytearray(raw(root, TEST_IMAGES))
    content[1000] ^= 1
    rewrite(root, TEST_IMAGES, bytes(content))
    with pytest.raises(DataError, match=TEST_IMAGES):
        FashionMNIST(root=str(root), val_size=21).load("test")


def with_header(items: int, *others: int, magic: int | None = None) -> bytes:
    return struct.pack(f">{2 + len(others)}I", magic or 0x801 + len(others), items, *others)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TEST_IMAGES, b"", "begins with"),
        (TEST_IMAGES, b"\0\0\x08\x03\0\0", "begins with 00000803, expected"),
        (TEST_IMAGES, with_header(27, 28, 28, magic=0x0D03) + bytes(27 * 784), "begins with 00000d03"),
        (TEST_IMAGES, with_header(27) + bytes(27), "begins with 00000801"),
        (TEST_IMAGES, with_header(27, 28, 27) + bytes(27 * 28 * 27), r"\(27, 28, 27\), expected .*\(N, 28, 28\)"),
        (TEST_IMAGES, with_header(28, 28, 28) + bytes(27 * 784), "fewer bytes than its 28 items"),
        (TEST_IMAGES, with_header(26, 28, 28) + bytes(27 * 784), "more bytes than its 26 items"),
        (TEST_IMAGES, with_header(2**32 - 1, 28, 28) + bytes(784), "too short for its 4294967295 items"),
        (TEST_IMAGES, with_header(0, 28, 28), "no items"),
        (TEST_IMAGES, with_header(26, 28, 28) + bytes(26 * 784), f"{TEST_LABELS}.*27 labels for the 26 images"),
        (TEST_LABELS, with_header(26) + bytes(26), f"{TEST_LABELS}.*26 labels for the 27 images"),
        (TEST_LABELS, with_header(27) + bytes([3] * 26 + [10]), "label 10, expected 0 to 9"),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_bad_contents(
    root: Path, arguments: dict[str, Any], name: str, content: bytes, message: str, compressed: bool
) -> None:
    if compressed:
        rewrite(root, name, content)
    else:
        (root / f"{name}.gz").unlink()
        (root / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        FashionMNIST(**arguments).load("test")
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("damage", ["cut off", "a byte", "no gzip", "a folder"])
def test_damaged_gzip(root: Path, arguments: dict[str, Any], damage: str) -> None:
    path = root / f"{TEST_IMAGES}.gz"
    content = bytearray(path.read_bytes())
    if damage == "a byte":
        content[5000] ^= 0xFF
    path.write_bytes({"cut off": content[:-500], "no gzip": b"<html>"}.get(damage, content))
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    expected = "four files" if damage == "a folder" else f"{TEST_IMAGES}.*(cannot be read|begins with)"
    with pytest.raises(DataError, match=expected):
        FashionMNIST(**arguments).load("test")


@pytest.mark.parametrize(("name", "value"), [("resize", 0), ("val_size", 0), ("val_size", -3)])
def test_values_out_of_range(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{name} is {value}"):
        FashionMNIST(**{name: value})


def test_val_size_must_leave_something(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="val_size is 96, but there are only 96"):
        FashionMNIST(**{**arguments, "val_size": 96}).load("train")


# where it is looked for


@pytest.mark.usefixtures("tiny_is_real")
def test_places_in_order(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_DATA", str(tmp_path / "env"))
    given = tmp_path / "given"
    places = [
        given,
        given / "FashionMNIST/raw",
        tmp_path / "env/FashionMNIST",
        Path("data/FashionMNIST"),
        tmp_path / "debian",
    ]
    for place in places:
        place.mkdir(parents=True)
        for file in root.iterdir():
            (place / file.name).write_bytes(file.read_bytes())
    for place in places:
        data = FashionMNIST(root=str(given))
        data.prepare_data()  # fetches nothing: there is no network
        found = data._found()
        assert found is not None
        assert {path.parent for path in found.values()} == {place}
        next(place.iterdir()).unlink()


@pytest.mark.usefixtures("tiny_is_real")
def test_plain_file_is_preferred(root: Path) -> None:
    (root / TEST_IMAGES).write_bytes(raw(root, TEST_IMAGES))
    (root / f"{TEST_IMAGES}.gz").write_bytes(b"not looked at")
    assert len(FashionMNIST(root=str(root)).load("test")) == 27


def test_unverified_data_is_read_from_its_own_folder_only(
    arguments: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "debian").symlink_to(root)
    data = FashionMNIST(root=str(tmp_path / "elsewhere"), verify=False)
    with pytest.raises(NoSourceError, match="elsewhere: does not hold the four files"):
        data.prepare_data()
    with pytest.raises(NoSourceError):
        data.load("train")


def test_when_nothing_works_everything_tried_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/"])
    with pytest.raises(NoSourceError) as caught:
        FashionMNIST(root=str(root)).prepare_data()
    message = str(caught.value)
    for tried in (str(root), "data/FashionMNIST", "debian", "127.0.0.1:9/a/train", "127.0.0.1:9/b/train", "apt-get"):
        assert tried in message
    for name in FILES:
        assert str(root / f"{name}.gz") in message
    assert list(root.iterdir()) == []


def test_mirrors_are_torchvisions(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://a/", "http://b/"])
    fetched: list[tuple[Download, Path]] = []
    monkeypatch.setattr(fashion_mnist, "fetch", lambda download, folder: fetched.append((download, folder)))
    FashionMNIST(root=str(root)).prepare_data()
    assert [download.name for download, _ in fetched] == [f"{name}.gz" for name in FILES]
    assert {folder for _, folder in fetched} == {root}
    first = fetched[0][0]
    assert first.urls == (f"http://a/{TRAIN_IMAGES}.gz", f"http://b/{TRAIN_IMAGES}.gz")
    assert first.checksum == "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"


@pytest.mark.usefixtures("tiny_is_real")
@pytest.mark.parametrize("good", [True, False])
def test_debian_package_is_the_last_source(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    def unpack(package: str, folder: Path) -> None:
        assert package == "dataset-fashion-mnist"
        unpacked = folder.joinpath(*fashion_mnist.DEBIAN_FOLDER.parts[1:])
        unpacked.mkdir(parents=True)
        for file in root.iterdir():
            (unpacked / file.name).write_bytes(file.read_bytes())
        if not good:
            (unpacked / f"{TEST_LABELS}.gz").write_bytes(b"damaged")

    monkeypatch.setattr(fashion_mnist, "unpack_debian_package", unpack)
    target = tmp_path / "new"
    data = FashionMNIST(root=str(target), val_size=21)
    if good:
        data.prepare_data()
        assert len(data.load("train")) == 75
        assert {path.name for path in target.iterdir()} == {f"{name}.gz" for name in FILES}
    else:
        with pytest.raises(NoSourceError, match=TEST_LABELS):
            data.prepare_data()
        assert list(target.iterdir()) == []


def test_predicting_fetches_nothing(root: Path) -> None:
    class Trainer:
        predicting = True

    data = FashionMNIST(root=str(root))
    data.trainer = Trainer()  # type: ignore[assignment]
    data.prepare_data()
    assert not root.exists()
    assert data._looked_in()[0] == Attempt(str(root), "does not hold the four files")
