"""StylePair: pairs, names and sizes; pictures of every kind; what may be wrong with them."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from leyden.batches import StyleFacts, StylePairs
from leyden.errors import DataError, UsageError
from leyden_datamodules.style_pair import StylePair

RED, BLUE = (200, 30, 20), (10, 40, 180)


def save(path: Path, size: tuple[int, int] = (60, 40), colour: Any = RED, mode: str = "RGB", **more: Any) -> str:
    """A picture of one colour; size is width and height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **more)
    return str(path)


@pytest.fixture
def content(tmp_path: Path) -> str:
    return save(tmp_path / "hill.png")


@pytest.fixture
def style(tmp_path: Path) -> str:
    return save(tmp_path / "oak.jpg", colour=BLUE)


def ready(**arguments: Any) -> StylePair:
    data = StylePair(**arguments)
    data.setup("fit")
    return data


def only(pixels: Tensor) -> list[int]:
    """The one colour of a picture (3, H, W)."""
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0].tolist()


def test_every_content_with_every_style(tmp_path: Path) -> None:
    for name, colour in {"a.png": RED, "b/c.png": BLUE}.items():
        save(tmp_path / "content" / name, colour=colour)
    for name, colour in {"x.png": (1, 2, 3), "y.png": (4, 5, 6), "z.png": (7, 8, 9)}.items():
        save(tmp_path / "style" / name, size=(90, 90), colour=colour)
    data = ready(root=str(tmp_path), image_size=30, style_size=[20, 24], steps_per_epoch=4)
    names = [(content, style) for content in ("a.png", "b/c.png") for style in ("x.png", "y.png", "z.png")]
    assert data.facts == StyleFacts(tuple((*pair, 20, 30) for pair in names))
    data.setup("test")
    assert {split: len(source) for split, source in data.splits.items()} == {"train": 24, "val": 6, "test": 6}
    batch = data.splits["val"].__getitems__([4, 0])
    assert type(batch) is StylePairs
    assert batch.contents.shape == (2, 3, 20, 30)
    assert batch.styles.shape == (2, 3, 20, 24)
    assert batch.pairs.tolist() == [4, 0]
    assert [only(pixels) for pixels in batch.contents] == [[*BLUE], [*RED]]
    assert [only(pixels) for pixels in batch.styles] == [[4, 5, 6], [1, 2, 3]]
    in_training: Any = data.splits["train"].__getitems__(range(24))
    assert in_training.pairs.bincount().tolist() == [4] * 6


def test_an_epoch_offers_each_pair_so_often(content: str, style: str) -> None:
    data = ready(content=content, style=style, steps_per_epoch=7)
    batches = list(data.train_dataloader())
    assert [batch.pairs.tolist() for batch in batches] == [[0]] * 7
    assert [len(batch.contents) for batch in data.val_dataloader()] == [1]


def test_pixels_become_numbers_from_0_to_1(content: str, style: str) -> None:
    data = ready(content=content, style=style)
    stored = data.splits["val"].__getitems__([0])
    batch = data.transform(stored, training=True)
    assert stored.contents.dtype == torch.uint8
    assert batch.contents.dtype == batch.styles.dtype == torch.float32
    expected = torch.tensor(RED) / 255
    torch.testing.assert_close(batch.contents[0], expected[:, None, None].expand(3, 300, 450))
    assert only(stored.contents[0]) == [*RED], "what is stored has changed"


def test_a_picture_is_decoded_once(tmp_path: Path, content: str, style: str) -> None:
    data = ready(content=content, style=style)
    first = data.splits["train"].__getitems__([0]).contents
    Path(content).unlink()
    again = data.splits["train"].__getitems__([1]).contents
    assert first.data_ptr() == again.data_ptr()


@pytest.mark.parametrize(
    ("size", "wanted", "expected"),
    [
        ((2048, 1365), 450, (300, 450)),  # the book's content
        ((1365, 2048), 450, (450, 300)),
        ((60, 60), 100, (100, 100)),
        ((60, 40), [300, 450], (300, 450)),
        ((60, 40), [40, 100], (40, 100)),
        ((20000, 900), 450, (20, 450)),
    ],
)
def test_image_size(tmp_path: Path, style: str, size: Any, wanted: Any, expected: tuple[int, int]) -> None:
    data = ready(content=save(tmp_path / "c.png", size), style=style, image_size=wanted)
    assert data.facts.pairs == (("c.png", "oak.jpg", *expected),)  # type: ignore[union-attr]
    assert data.splits["val"].__getitems__([0]).contents.shape[2:] == expected


def test_styles_are_resized_as_contents_unless_told_otherwise(content: str, style: str) -> None:
    for more, expected in (({}, (30, 45)), ({"style_size": 90}, (60, 90)), ({"style_size": (20, 30)}, (20, 30))):
        data = ready(content=content, style=style, image_size=45, **more)
        batch = data.splits["val"].__getitems__([0])
        assert (batch.contents.shape[2:], batch.styles.shape[2:]) == ((30, 45), expected)


def test_resizing_is_that_of_pillow(tmp_path: Path, style: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (70, 110, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    data = ready(content=str(tmp_path / "noise.png"), style=style, image_size=[35, 50])
    expected = np.asarray(Image.fromarray(noise).resize((50, 35), Image.Resampling.BILINEAR))
    found = data.splits["val"].__getitems__([0]).contents[0]
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    ("name", "mode", "colour", "expected"),
    [
        ("grey.png", "L", 77, [77, 77, 77]),
        ("deep.png", "I;16", 77 << 8, [77, 77, 77]),
        ("clear.png", "RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("print.tif", "CMYK", (0, 255, 255, 0), [255, 0, 0]),
    ],
)
def test_pictures_of_every_kind(
    tmp_path: Path, content: str, name: str, mode: str, colour: Any, expected: list[int]
) -> None:
    style = save(tmp_path / name, (40, 40), colour, mode)
    data = ready(content=content, style=style)
    assert only(data.splits["val"].__getitems__([0]).styles[0]) == expected


def test_of_an_animated_picture_the_first_frame_counts(tmp_path: Path, style: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("white", "black")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    data = ready(content=str(tmp_path / "film.gif"), style=style)
    assert only(data.splits["val"].__getitems__([0]).contents[0]) == [255, 255, 255]


def test_inputs_of_predict_are_found_by_name(tmp_path: Path) -> None:
    facts = StyleFacts((("a.png", "x", 20, 30), ("a.png", "y", 20, 30), ("b/c.png", "x", 20, 30)))
    inputs = [save(tmp_path / name) for name in ("b/c.png", "c.png", "elsewhere/a.png")]
    data = StylePair(image_size=[20, 30], root=str(tmp_path / "nowhere"))
    data.facts, data.inputs = facts, inputs
    data.setup("predict")
    source: Any = data.splits["predict"]
    assert source.inputs == [inputs[0], inputs[1], inputs[2], inputs[2]]
    batch = data.transform(source.__getitems__(range(4)), training=False)
    assert batch.pairs.tolist() == [2, -1, 0, 1]
    assert batch.contents.shape == (4, 3, 20, 30)
    assert batch.styles.shape == (4, 3, 0, 0)


# what may be wrong


def test_nothing_is_held_out(content: str, style: str) -> None:
    assert not StylePair.held_out
    with pytest.raises(UsageError, match="StylePair has no folds"):
        StylePair(content=content, style=style, fold="1/3")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"image_size": 0},
            r"image_size is 0; it must be the longer side or \[height, width\], from 16 to 4096 pixels",
        ),
        ({"image_size": [300, 15]}, r"image_size is \[300, 15\]"),
        ({"image_size": [64, 64, 64]}, r"image_size is \[64, 64, 64\]; it must be the longer side or"),
        ({"image_size": [64]}, r"image_size is \[64\]"),
        ({"image_size": []}, r"image_size is \[\]"),
        ({"image_size": 4097}, "image_size is 4097"),
        ({"style_size": 0}, "style_size is 0"),
        ({"style_size": [-1, 30]}, r"style_size is \[-1, 30\]"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0; it must be at least 1"),
    ],
)
def test_values_out_of_range(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StylePair(**bad)


@pytest.mark.parametrize(
    ("size", "wanted", "message"),
    [
        ((1, 1), 450, "1 x 1 pixels, expected at least 16 in both directions"),
        ((15, 400), 450, "15 x 400 pixels, expected at least 16"),
        ((20000, 90), 450, r"20000 x 90 pixels, which with image_size 450 would become 450 x 2; .* Cut a part"),
    ],
)
def test_pictures_that_are_too_small(tmp_path: Path, style: str, size: Any, wanted: int, message: str) -> None:
    path = save(tmp_path / "odd.png", size)
    with pytest.raises(DataError, match=message) as caught:
        ready(content=path, style=style, image_size=wanted)
    assert path in str(caught.value)


def test_a_picture_that_pillow_takes_for_an_attack(tmp_path: Path, style: str, monkeypatch: Any) -> None:
    path = save(tmp_path / "huge.png", (100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4999)  # it refuses twice as many
    with pytest.raises(DataError, match=r"huge\.png: cannot be read as a picture .*limit"):
        ready(content=path, style=style)


def test_pillow_does_not_warn_of_a_picture_that_is_within_the_limit(tmp_path: Path) -> None:
    path = save(tmp_path / "large.png", (100, 100))
    code = (
        "import sys; from pathlib import Path; from PIL import Image; from leyden_datamodules import _images; "
        "Image.MAX_IMAGE_PIXELS = 9999; print(_images.upright_size(Path(sys.argv[1])))"
    )
    found = subprocess.run([sys.executable, "-W", "always", "-c", code, path], capture_output=True, text=True)
    assert found.stdout.strip() == "(100, 100)"
    assert "DecompressionBomb" not in found.stderr


def test_missing_and_damaged_pictures(tmp_path: Path, content: str, style: str) -> None:
    for arguments, message in (
        ({"content": "nowhere.png", "style": style}, "nowhere.png: no such file or folder.*--data.content PATH"),
        ({"content": content, "style": str(tmp_path / "none")}, "none: no such file or folder.*--data.style PATH"),
        ({"root": str(tmp_path / "place")}, "place/content: no such file or folder"),
    ):
        with pytest.raises(DataError, match=message):
            ready(**arguments)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no pictures in this folder"):
        ready(content=str(tmp_path / "empty"), style=style)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png: is not a picture"):
        ready(content=str(tmp_path / "text.png"), style=style)
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.png: cannot be read as a picture"):
        ready(content=str(tmp_path / "half.png"), style=style).splits["val"].__getitems__([0])


def test_contents_of_two_sizes_are_painted_one_at_a_time(tmp_path: Path, style: str) -> None:
    for name, size in {"wide.png": (60, 40), "high.png": (40, 60)}.items():
        save(tmp_path / "contents" / name, size)
    folder = str(tmp_path / "contents")
    sizes = [pair[2:] for pair in ready(content=folder, style=style, image_size=30).facts.pairs]  # type: ignore[union-attr]
    assert sizes == [(30, 20), (20, 30)]
    for batch_size in (2, None):
        with pytest.raises(UsageError, match=r"contents of 30 x 20 and of 20 x 30 pixels .* --data\.batch_size 1"):
            ready(content=folder, style=style, image_size=30, batch_size=batch_size)
    data = ready(content=folder, style=style, image_size=[24, 24], batch_size=None)
    assert next(iter(data.val_dataloader())).contents.shape == (2, 3, 24, 24)
    assert math.prod(next(iter(data.train_dataloader())).contents.shape[:1]) == 100
