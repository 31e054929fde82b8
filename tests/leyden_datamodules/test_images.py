"""Pictures of every kind decode to what they show; augmentation of a batch equals a loop over its images."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from leyden.batches import ImageFacts, LabelledImages
from leyden.errors import DataError, UsageError
from leyden_datamodules import _images
from leyden_datamodules.fashion_mnist import FashionMNIST
from leyden_datamodules.image_folder import ImageFolder

COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[9, 60, 200], [0, 0, 0], [255, 255, 255]]], np.uint8)


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fashion(image_size: int = 28, **arguments: Any) -> FashionMNIST:
    data = FashionMNIST(**arguments)
    data.facts = ImageFacts(1, (image_size, image_size), tuple("abcdefghij"))
    return data


# augmentation


@settings(max_examples=30, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_crop_and_flip_equals_a_loop(channels: int, height: int, width: int, padding: int, seed: int) -> None:
    images = random_images(5, channels, height, width, seed=seed)
    torch.manual_seed(seed)
    tops, lefts = torch.randint(0, 2 * padding + 1, (2, 5))
    flipped = torch.rand(5) < 0.5
    result = _images.crop_and_flip(images, padding, tops, lefts, flipped)
    for image, top, left, flip, got in zip(images, tops, lefts, flipped, result, strict=True):
        expected = v2.functional.crop(v2.functional.pad(image, [padding]), int(top), int(left), height, width)
        assert torch.equal(got, v2.functional.horizontal_flip(expected) if flip else expected)


@settings(max_examples=30, deadline=None)
@given(channels=st.sampled_from([1, 3]), height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 1000))
def test_erase_equals_a_loop(channels: int, height: int, width: int, seed: int) -> None:
    images = random_images(6, channels, height, width, seed=seed).float()
    torch.manual_seed(seed)
    boxes = _images.random_boxes(6, height, width, images.device)
    boxes[2] = 0  # an empty box
    expected = torch.stack(
        [
            v2.functional.erase(image, top, left, bottom - top, right - left, torch.zeros(1))
            for image, (top, left, bottom, right) in zip(images, boxes.tolist(), strict=True)
        ]
    )
    assert torch.equal(_images.erase(images.clone(), boxes), expected)


def test_random_boxes_are_as_random_erasing_says() -> None:
    torch.manual_seed(0)
    top, left, bottom, right = _images.random_boxes(20_000, 1000, 1000, torch.device("cpu")).unbind(1)
    height, width = bottom - top, right - left
    assert min(int(top.min()), int(left.min())) >= 0
    # they reach the edge, and not beyond
    assert (int(bottom.max()), int(right.max())) == (1000, 1000)
    assert (int(bottom[height < 1000].max()), int(right[width < 1000].max())) == (1000, 1000)
    area = height * width / 1e6
    assert area.min() > 0.019
    assert area.max() < 0.331
    assert area.mean() == pytest.approx((0.02 + 0.33) / 2, abs=0.005)
    ratio = (height / width).log()
    assert ratio.mean() == pytest.approx((np.log(0.3) + np.log(3.3)) / 2, abs=0.02)
    # a box may lie anywhere: its centre's mean is the image's
    assert (top + bottom).float().mean() / 2 == pytest.approx(500, abs=8)


def test_flip_is_drawn_for_each_image() -> None:
    torch.manual_seed(0)
    images = random_images(1, 1, 28, 28).expand(400, -1, -1, -1)
    result = fashion(flip=True).transform(LabelledImages(images, torch.zeros(400).long()), training=True).images
    plain = images / 255
    same = (result - plain).abs().flatten(1).amax(1) < 1e-6
    mirrored = (result - plain.flip(3)).abs().flatten(1).amax(1) < 1e-6
    assert bool((same ^ mirrored).all())
    assert 150 < int(same.sum()) < 250


def test_crop_is_drawn_for_each_image_and_covers_all_shifts() -> None:
    torch.manual_seed(0)
    images = torch.zeros(2000, 1, 28, 28, dtype=torch.uint8)
    images[:, :, 14, 14] = 255
    batch = LabelledImages(images, torch.zeros(2000).long())
    result = fashion(crop_padding=2).transform(batch, training=True).images
    places = {tuple(place) for place in result[:, 0].nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in range(12, 17) for column in range(12, 17)}


def test_erase_is_drawn_for_each_image() -> None:
    torch.manual_seed(0)
    batch = LabelledImages(torch.full((1000, 1, 28, 28), 255, dtype=torch.uint8), torch.zeros(1000).long())
    result = fashion(erase=0.3).transform(batch, training=True).images
    erased = (result == 0).flatten(1).sum(1)
    assert 230 < int((erased > 0).sum()) < 370
    assert len(erased.unique()) > 50
    assert bool(((result == 0) | (result == 1)).all())


@pytest.mark.parametrize("arguments", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_mixed_labels_say_how_much_of_each_image_there_is(arguments: dict[str, float]) -> None:
    torch.manual_seed(0)
    # Image i is all value i, so that a mixture's mean tells its shares.
    labels = torch.arange(8)
    images = (labels * 30).to(torch.uint8)[:, None, None, None].expand(-1, 1, 28, 28)
    for _ in range(5):
        mixed = fashion(**arguments).transform(LabelledImages(images, labels), training=True)
        assert mixed.labels.shape == (8, 10)
        assert mixed.labels.dtype == torch.float32
        torch.testing.assert_close(mixed.labels.sum(1), torch.ones(8))
        expected = (mixed.labels[:, :8] * labels * 30 / 255).sum(1)
        torch.testing.assert_close(mixed.images.mean((1, 2, 3)), expected, atol=1e-5, rtol=1e-5)


def test_mixup_and_cutmix_take_turns() -> None:
    torch.manual_seed(0)
    data = fashion(mixup=1.0, cutmix=1.0)
    batch = LabelledImages(
        torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(-1, 1, 28, 28), torch.arange(2)
    )
    values = [len(data.transform(batch, training=True).images[0].unique()) for _ in range(40)]
    assert set(values) == {1, 2}  # mixup gives one grey, CutMix black and white


def test_without_training_nothing_is_random() -> None:
    everything = fashion(crop_padding=4, flip=True, erase=1.0, mixup=1.0, cutmix=1.0)
    batch = LabelledImages(random_images(9, 1, 28, 28), torch.arange(9))
    for data, training in ((everything, False), (fashion(), True)):
        images, labels = data.transform(batch, training=training)
        torch.testing.assert_close(images, batch.images / 255)
        assert images.dtype == torch.float32
        assert labels is batch.labels


def test_augmentation_leaves_the_stored_images_alone() -> None:
    stored = random_images(9, 1, 28, 28)
    before = stored.clone()
    data = fashion(normalize=True, crop_padding=4, flip=True, erase=1.0, mixup=1.0)
    data.transform(LabelledImages(stored, torch.arange(9)), training=True)
    assert torch.equal(stored, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalize(channels: int, tmp_path: Path) -> None:
    data = ImageFolder(root=str(tmp_path), grey=channels == 1, normalize=True, image_size=7)
    data.facts = ImageFacts(channels, (7, 7), ("a", "b"))
    images = random_images(4, channels, 7, 7)
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (data.mean, data.std))
    expected = (images.numpy() / 255 - mean) / std
    result = data.transform(LabelledImages(images, torch.zeros(4).long()), training=False).images
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [14, 96])
def test_resize_equals_pil(size: int) -> None:
    images = random_images(3, 1, 28, 28)
    result = fashion(size, resize=size).transform(LabelledImages(images, torch.zeros(3).long()), training=False).images
    for image, got in zip(images, result, strict=True):
        expected = Image.fromarray(image[0].numpy()).resize((size, size), Image.Resampling.BILINEAR)
        assert np.abs(got[0].numpy() * 255 - np.asarray(expected, dtype=float)).max() <= 1.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_padding": -1}, "crop_padding is -1"),
        ({"erase": 1.5}, "erase is 1.5"),
        ({"mixup": -0.1}, "mixup is -0.1"),
        ({"cutmix": -2.0}, "cutmix is -2.0"),
    ],
)
def test_values_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FashionMNIST(**arguments)


# decoding


def decoded(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(_images.open_picture(path, "RGB"))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm"])
def test_colour_files(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(COLOURS).save(tmp_path / f"x.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(decoded(tmp_path / f"x.{suffix}"), COLOURS)


def test_palette_and_gif(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE)
    for name in ("x.png", "x.gif"):
        palette.save(tmp_path / name)
        assert np.array_equal(decoded(tmp_path / name), COLOURS)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0] = 200
    pixels[0, :, 3] = (255, 0, 51)  # opaque, transparent, a fifth
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert decoded(tmp_path / "x.png").tolist() == [[[200, 0, 0], [255, 255, 255], [244, 204, 204]]]
    Image.fromarray(pixels[..., [0, 3]]).save(tmp_path / "y.png")  # grey with transparency
    assert decoded(tmp_path / "y.png")[0, :, 0].tolist() == [200, 255, 244]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putdata([0, 1])
    palette.save(tmp_path / "z.png", transparency=1)
    assert decoded(tmp_path / "z.png").tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits_keep_their_range(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    assert decoded(tmp_path / name)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_thirty_two_bits_are_taken_for_sixteen(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535]], np.int32)).save(tmp_path / "x.tif")
    assert decoded(tmp_path / "x.tif")[0, :, 0].tolist() == [0, 255]
    Image.fromarray(np.array([[0, 65536]], np.int32)).save(tmp_path / "y.tif")
    with pytest.raises(DataError, match=r"y\.tif.*expected 0 to 65535"):
        decoded(tmp_path / "y.tif")


def test_one_bit_grey_and_cmyk(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "x.png")
    assert decoded(tmp_path / "x.png")[0, :, 0].tolist() == [255, 0]
    Image.fromarray(np.array([[7, 200]], np.uint8)).save(tmp_path / "y.png")
    assert decoded(tmp_path / "y.png").tolist() == [[[7, 7, 7], [200, 200, 200]]]
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "z.jpg", quality=100)
    assert np.abs(decoded(tmp_path / "z.jpg").astype(int) - [255, 0, 0]).max() < 4


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_pictures_stand_upright(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(decoded(tmp_path / "x.png"), np.rot90(COLOURS, turns))


def test_floating_point_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif.*8 or 16 bits"):
        decoded(tmp_path / "x.tif")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(random_images(64, 64, 3).numpy()).save(buffer, "JPEG")
    files = {"cut_off.jpg": buffer.getvalue()[:-1000], "text.png": b"no picture", "empty.gif": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            decoded(tmp_path / name)
    with pytest.raises(DataError, match=r"missing\.png: no such file"):
        decoded(tmp_path / "missing.png")


def test_large_jpegs_are_decoded_small_and_look_the_same(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:800, 0:1200]
    picture = np.stack([rows * 255 // 800, columns * 255 // 1200, 128 + 100 * np.sin(rows / 30)], 2).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "x.jpg", quality=95)
    assert max(_images.open_picture(tmp_path / "x.jpg", "RGB", at_least=100).size) < 600
    small = _images.Pictures([tmp_path / "x.jpg"], torch.tensor([4]), 3, (50, 50)).__getitems__([0])
    expected = Image.fromarray(picture).resize((50, 50), Image.Resampling.BILINEAR)
    assert np.abs(small.images[0].permute(1, 2, 0).numpy().astype(int) - np.asarray(expected)).mean() < 1.5
    assert small.labels.tolist() == [4]


# what `predict` is given


def a_picture(path: Path, value: int, size: tuple[int, int] = (5, 4)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return str(path)


def test_inputs_come_in_order_each_once(tmp_path: Path) -> None:
    last = a_picture(tmp_path / "z.png", 1)
    a_picture(tmp_path / "folder" / "b.png", 4)
    a_picture(tmp_path / "folder" / "a" / "deep.PNG", 3)
    a_picture(tmp_path / "folder" / "c.bmp", 5, (300, 2))
    a_picture(tmp_path / "folder" / ".hidden.png", 9)
    (tmp_path / "folder" / "notes.txt").touch()
    odd = a_picture(tmp_path / "odd.png", 2)
    Path(odd).rename(tmp_path / "odd")  # named itself, a file needs no suffix
    data = fashion()
    source = data.load_inputs([last, str(tmp_path / "odd"), str(tmp_path / "folder"), last])
    folder = tmp_path / "folder"
    assert source.inputs == [
        last,
        str(tmp_path / "odd"),
        *(str(folder / name) for name in ("a/deep.PNG", "b.png", "c.bmp")),
    ]
    batch = source.__getitems__(range(len(source)))
    assert batch.images.shape == (5, 1, 28, 28)
    assert batch.images.dtype == torch.uint8
    assert batch.images[:, 0, 3, 3].tolist() == [1, 2, 3, 4, 5]
    assert batch.labels.tolist() == [-1] * 5
    assert source.__getitems__([3, 0]).images[:, 0, 0, 0].tolist() == [4, 1]
    assert source.picture(4).size == (300, 2)
    assert source.picture(4).mode == "RGB"


def test_inputs_are_decoded_as_the_facts_say(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    picture = Image.fromarray(random_images(60, 40, 3).numpy())
    picture.save(path)
    data = FashionMNIST(resize=32)
    data.facts = ImageFacts(3, (24, 32), ("a", "b"))
    images = data.load_inputs([str(path)]).__getitems__([0]).images
    expected = np.asarray(picture.resize((32, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), expected)
    assert data.transform(LabelledImages(images, torch.tensor([-1])), training=False).images.shape == (1, 3, 24, 32)


def test_predict_setup_needs_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for data in (FashionMNIST(root="/nonexistent"), ImageFolder()):
        data.facts = ImageFacts(1, (28, 28), ("a", "b"))
        data.inputs = [a_picture(tmp_path / "x.png", 3)]
        data.setup("predict")
        assert [batch.images.shape for batch in data.predict_dataloader()] == [(1, 1, 28, 28)]


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    data = fashion()
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        data.load_inputs([str(tmp_path / "nowhere")])
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"no pictures in this folder.*\.png"):
        data.load_inputs([str(tmp_path)])
    with pytest.raises(DataError, match="nothing to predict"):
        data.load_inputs([])
    (tmp_path / "bad.png").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"bad\.png"):
        data.load_inputs([str(tmp_path / "bad.png")]).__getitems__([0])
