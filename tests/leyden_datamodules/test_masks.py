"""Masks of every kind read as what they show; VOC's colours are VOC's."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leyden.batches import VOID
from leyden.errors import DataError
from leyden_datamodules._masks import MaskReader, palette_of, voc_palette

# from the devkit's documentation, in class order
VOC_COLOURS = """
0 0 0, 128 0 0, 0 128 0, 128 128 0, 0 0 128, 128 0 128, 0 128 128, 128 128 128, 64 0 0, 192 0 0, 64 128 0, 192 128 0,
64 0 128, 192 0 128, 64 128 128, 192 128 128, 0 64 0, 128 64 0, 0 192 0, 128 192 0, 0 64 128
"""
INDICES = np.array([[0, 1, 2], [20, VOID, 0]], np.uint8)
READER = MaskReader(voc_palette(21), "the 21 classes of VOC")


def in_colours(indices: np.ndarray, palette: tuple[tuple[int, int, int], ...] = voc_palette(256)) -> Image.Image:
    return Image.fromarray(np.array(palette, np.uint8)[indices])


def paletted(indices: np.ndarray) -> Image.Image:
    picture = Image.fromarray(indices, "P")
    picture.putpalette(np.array(voc_palette(256), np.uint8).tobytes())
    return picture


def saved(picture: Image.Image, folder: Path) -> Path:
    path = folder / "mask.png"
    picture.save(path)
    return path


def test_voc_palette() -> None:
    expected = [tuple(map(int, colour.split())) for colour in VOC_COLOURS.split(",")]
    assert list(voc_palette(21)) == expected
    assert voc_palette(256)[VOID] == (224, 224, 192)
    assert len(set(voc_palette(256))) == 256


@pytest.mark.parametrize("kind", ["palette", "grey", "16 bits", "RGB", "RGBA"])
def test_every_kind_reads_the_same(tmp_path: Path, kind: str) -> None:
    picture = {
        "palette": paletted(INDICES),
        "grey": Image.fromarray(INDICES),
        "16 bits": Image.fromarray(INDICES.astype(np.uint16)),
        "RGB": in_colours(INDICES),
        "RGBA": in_colours(INDICES).convert("RGBA"),
    }[kind]
    mask = READER.read(saved(picture, tmp_path))
    assert mask.numpy().dtype == np.uint8
    assert np.array_equal(mask.numpy(), INDICES)


def test_two_classes_in_one_bit(tmp_path: Path) -> None:
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    assert READER.read(saved(bits, tmp_path)).tolist() == [[0, 1], [1, 0]]


def test_black_is_void_unless_a_class_is_black(tmp_path: Path) -> None:
    colours = ((9, 9, 9), (200, 0, 0))
    path = saved(in_colours(np.array([[0, 1, 2]]), (*colours, (0, 0, 0))), tmp_path)
    assert MaskReader(colours, "two").read(path).tolist() == [[0, 1, VOID]]
    assert MaskReader((*colours, (0, 0, 0)), "three").read(path).tolist() == [[0, 1, 2]]


def test_many_colours_equal_a_loop(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).choice([*range(200), VOID], (40, 30)).astype(np.uint8)
    reader = MaskReader(voc_palette(200), "many")
    assert np.array_equal(reader.read(saved(in_colours(indices), tmp_path)).numpy(), indices)


def test_palette_of(tmp_path: Path) -> None:
    assert palette_of(saved(paletted(INDICES), tmp_path))[:21] == voc_palette(21)
    assert palette_of(saved(in_colours(INDICES), tmp_path)) == ()
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        palette_of(tmp_path / "none.png")


# what may be wrong


@pytest.mark.parametrize("bits", [np.uint8, np.uint16])
def test_value_outside_of_the_classes(tmp_path: Path, bits: type) -> None:
    path = saved(Image.fromarray(np.array([[0, 1, 2], [20, 21, 254]], bits)), tmp_path)
    with pytest.raises(DataError) as caught:
        READER.read(path)
    expected = "value 21 at row 1, column 1 (from 0); expected 0 to 20, the 21 classes of VOC, or 255 (void)."
    assert str(caught.value) == f"{path}: {expected}"


def test_value_beyond_a_byte(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="value 256 at row 0, column 1"):
        READER.read(saved(Image.fromarray(np.array([[0, 256]], np.uint16)), tmp_path))


@pytest.mark.parametrize("colour", [(1, 2, 3), (255, 255, 255), (0, 64, 129)])
def test_colour_of_no_class(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    picture = in_colours(np.zeros((4, 5), np.uint8))
    picture.putpixel((3, 2), colour)
    path = saved(picture, tmp_path)
    with pytest.raises(DataError) as caught:
        READER.read(path)
    for part in (str(path), f"colour {colour} at row 2, column 3", "21 classes of VOC", "(128, 0, 0)"):
        assert part in str(caught.value)


def test_no_mask_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mask\.png: a mask of the kind LA; expected a palette"):
        READER.read(saved(Image.new("LA", (2, 2)), tmp_path))
    for content in (b"", b"no picture"):
        (tmp_path / "mask.png").write_bytes(content)
        with pytest.raises(DataError, match=r"mask\.png: is not a picture"):
            READER.read(tmp_path / "mask.png")
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        READER.read(tmp_path / "none.png")
