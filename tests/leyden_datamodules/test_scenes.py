"""Scenes are padded into one batch, and what fits is held in memory."""

import copy
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from leyden.errors import DataError, UsageError
from leyden_datamodules._images import open_picture, upright_size
from leyden_datamodules._scenes import Held, Scene, SceneData, Scenes, clear_padding, pad


class Plain(Scenes[Scene]):
    """Whole pictures, as a list."""

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        return [self.pixels(index) for index in indices]


class PlainData(SceneData[Any]):
    """What is not asked for here is left out."""

    fabricate = describe = listed = ready = None  # type: ignore[assignment]

    def load_inputs(self, inputs: Sequence[str]) -> Plain:
        return source_of([])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five pictures of five sizes, the middle one a JPEG that lies on its side."""
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(random.integers(0, 256, (5 + number, 9 - number, 3), np.uint8)).save(path)
    lying = Image.fromarray(random.integers(0, 256, (6, 11, 3), np.uint8))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.jpg", exif=exif)
    return [*paths[:2], tmp_path / "lying.jpg", *paths[2:]]


def source_of(files: Sequence[Path]) -> Plain:
    return Plain([Scene(path) for path in files])


# batches


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5), value=st.integers(0, 255)
)
def test_padding(sizes: list[tuple[int, int]], value: int) -> None:
    parts = [torch.randint(0, 256, (2, *size), dtype=torch.uint8) for size in sizes]
    batch = pad(parts, value)
    assert batch.shape == (len(parts), 2, max(size[0] for size in sizes), max(size[1] for size in sizes))
    for padded, part, (height, width) in zip(batch, parts, sizes, strict=True):
        expected = np.pad(
            part.numpy(),
            ((0, 0), (0, batch.shape[2] - height), (0, batch.shape[3] - width)),
            constant_values=np.uint8(value),
        )
        assert np.array_equal(padded.numpy(), expected)
    images = clear_padding(torch.ones(batch.shape), torch.tensor(sizes))
    assert images.sum((1, 2, 3)).tolist() == [2 * height * width for height, width in sizes]
    assert all(bool(image[:, : size[0], : size[1]].all()) for image, size in zip(images, sizes, strict=True))


def test_normalized() -> None:
    data = PlainData(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    before = images.clone()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (data.mean, data.std))
    found = data.normalized(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), (images.double() / 255 - mean) / std, atol=1e-6, rtol=1e-6)
    assert torch.equal(images, before)


# what is held in memory


def test_upright_size_is_that_of_the_decoded_picture(files: list[Path]) -> None:
    for path in files:
        picture = open_picture(path, "RGB")
        assert upright_size(path) == (picture.height, picture.width)
    assert upright_size(files[2]) == (11, 6)
    with pytest.raises(DataError, match=r"gone\.jpg: no such file"):
        upright_size(files[0].with_name("gone.jpg"))


def test_held_tensors_are_apart() -> None:
    held = Held(4, [(2, 3), (1, 1), (5, 2)])
    for index in range(3):
        held[index].fill_(index + 1)
    assert [held[index].shape for index in range(3)] == [(4, 2, 3), (4, 1, 1), (4, 5, 2)]
    assert held.memory.bincount().tolist() == [0, 24, 4, 40]
    held.select([2, 0])
    assert [held[index].unique().tolist() for index in range(2)] == [[3], [1]]


def test_held_pictures_are_the_files(files: list[Path]) -> None:
    plain, held = source_of(files), source_of(files)
    PlainData().prepare(held)
    assert held.held is not None
    for index in range(5):
        assert torch.equal(plain.pixels(index), held.pixels(index))
        assert np.array_equal(np.asarray(plain.picture(index)), plain.pixels(index).permute(1, 2, 0).numpy())
    assert held.inputs == plain.inputs == [str(path) for path in files]


def test_what_does_not_fit_is_not_held(
    files: list[Path], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 3 * sum(height * width for height, width in map(upright_size, files))
    monkeypatch.setattr(logging.getLogger("leyden"), "propagate", True)
    data = PlainData(cache=1.5 * needed / 2**30)
    with caplog.at_level(logging.INFO, "leyden"):
        first, second = source_of(files), source_of(files)
        data.prepare(first)
        assert not caplog.messages
        data.prepare(second)
    assert first.held is not None
    assert second.held is None
    [message] = set(caplog.messages)  # a test before may have left a second handler
    assert "5 scenes take" in message
    assert "--data.num_workers 2" in message
    off = source_of(files)
    PlainData(cache=0).prepare(off)
    assert off.held is None


def test_the_epoch_is_seen_by_copies_in_other_processes(files: list[Path]) -> None:
    source = source_of(files)
    worker = torch.multiprocessing.get_context("fork").Process(target=source.set_epoch, args=(7,))
    worker.start()
    worker.join()
    assert source.epoch == 7


# bad scenes


@pytest.mark.parametrize("cache", [0, 2])
@pytest.mark.parametrize("end", [0, 60, -25], ids=["empty", "within the head", "within the pixels"])
def test_bad_scenes(files: list[Path], cache: float, end: int) -> None:
    for path in files[1:3]:
        path.write_bytes(path.read_bytes()[:end])

    def read(source: Plain) -> list[Tensor]:
        PlainData(cache=cache).prepare(source)
        return source.__getitems__(range(len(source)))

    with pytest.raises(DataError, match=r"1\.png"):
        read(source_of(files))
    data = PlainData(cache=cache, on_error="skip")
    source = source_of(files)
    data.prepare(source)
    left = [0, 3, 4]
    assert source.inputs == [str(files[index]) for index in left]
    for pixels, index in zip(source.__getitems__(range(3)), left, strict=True):
        assert torch.equal(pixels, source_of(files).pixels(index))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            data.setup("predict")
    [message] = [str(warning.message) for warning in caught]
    assert "PlainData left out 2 scenes that cannot be used" in message
    assert str(files[1]) in message


def test_all_bad(files: list[Path]) -> None:
    for path in files:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 5 scenes can be used.*0\.png"):
        PlainData(on_error="skip").prepare(source_of(files))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"std": (1.0, 0.0, 1.0)}, r"std is \[1.0, 0.0, 1.0\]"),
        ({"cache": -1.0}, "cache is -1.0"),
    ],
)
def test_values_out_of_range(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PlainData(**copy.deepcopy(bad))
