"""A folder of contents and a style: crops, splits, styles, inputs of any size, and what may be wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from leyden.batches import StyleFacts, StylePairs
from leyden.errors import DataError, UsageError
from leyden_datamodules.style_images import StyleImages

SPLITS = ("train", "val", "test")


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    return StyleImages.fabricate(tmp_path / "data")


def save(path: Path, width: int, height: int, mode: str = "RGB", **options: Any) -> Path:
    """A picture whose red rises to the right and whose green rises downwards."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def with_contents(folder: Path, width: int, height: int, count: int = 3) -> dict[str, Any]:
    """The arguments for `count` pictures of one size."""
    for number in range(count):
        save(folder / "photos" / f"{number}.png", width, height)
    style = save(folder / "style.png", 30, 20)
    return {"root": str(folder / "photos"), "style": str(style), "image_size": 16, "style_size": 60}


def ready(arguments: dict[str, Any], **more: Any) -> StyleImages:
    data = StyleImages(**{**arguments, **more})
    for stage in ("fit", "test"):
        data.setup(stage)
    return data


def test_fabricated(arguments: dict[str, Any]) -> None:
    data = ready(arguments)
    assert StyleImages.batch_type() is StylePairs
    assert data.facts == StyleFacts((("contents", "style.png", 32, 32),))
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 37, "val": 5, "test": 5}
    batch = next(iter(data.train_dataloader()))
    assert batch.contents.shape == (4, 3, 32, 32)
    assert batch.contents.dtype == batch.styles.dtype == torch.uint8
    assert batch.pairs.tolist() == [0, 0, 0, 0]


def test_splits_are_disjoint_whole_and_by_seed(arguments: dict[str, Any]) -> None:
    data: Any = ready(arguments)
    parts = {split: data.splits[split].inputs for split in SPLITS}
    assert len(set().union(*parts.values())) == sum(map(len, parts.values())) == 47
    again: Any = ready(arguments)
    assert {split: again.splits[split].inputs for split in SPLITS} == parts
    other: Any = ready(arguments, seed=1)
    assert other.splits["val"].inputs != parts["val"]
    few: Any = ready(arguments, val_fraction=0.5, test_fraction=0.2)
    assert [len(few.splits[split]) for split in SPLITS] == [14, 24, 9]


def test_three_pictures_are_enough(tmp_path: Path) -> None:
    data = ready(with_contents(tmp_path, 20, 20), val_fraction=0.6, test_fraction=0.3)
    assert [len(data.splits[split]) for split in SPLITS] == [1, 1, 1]


def test_evaluation_sees_the_middle_of_a_picture(tmp_path: Path) -> None:
    """Red is the place along the width: 64 pixels on a height of 16 leave the columns 24 to 39."""
    data = ready(with_contents(tmp_path, 64, 16))
    for split in ("val", "test"):
        red, green, _ = data.splits[split].__getitems__([0]).contents[0].double()
        expected = np.linspace(0, 255, 64)[24:40]
        np.testing.assert_allclose(red.numpy(), np.broadcast_to(expected, (16, 16)), atol=1)
        np.testing.assert_allclose(green[:, 0].numpy(), np.linspace(0, 255, 16), atol=1)


def test_training_crops_anywhere_along_the_longer_side(tmp_path: Path) -> None:
    data: Any = ready(with_contents(tmp_path, 32, 128))
    source = data.splits["train"]
    starts = []
    for epoch in range(60):
        source.set_epoch(epoch)
        red, green, _ = source.__getitems__([0]).contents[0].double()
        assert float(red[0, 0]) < 10
        assert float(red[0, -1]) > 245
        span = float(green[-1, 0] - green[0, 0])
        assert span == pytest.approx(255 * 30 / 127, abs=3)  # a crop is as high as the picture is wide
        starts.append(float(green[0, 0]))
    assert min(starts) < 20
    assert max(starts) > 170
    assert len(set(starts)) > 30


def test_crops_follow_from_seed_epoch_and_item(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(epoch: int, **more: Any) -> list[torch.Tensor]:
        data = ready(arguments, **more)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return [batch.contents for batch in loader]

    def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
        return all(torch.equal(*pair) for pair in zip(one, other, strict=True))

    first = batches(0)
    assert same(first, batches(0))
    assert same(first, batches(0, num_workers=1))
    assert not same(first, batches(1))
    source: Any = ready(arguments).splits["train"]
    before = source.__getitems__(range(37)).contents
    source.set_epoch(1)
    assert not torch.equal(before, source.__getitems__(range(37)).contents)
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    other: Any = ready(arguments).splits["train"]
    assert not torch.equal(before, other.__getitems__(range(37)).contents)


def test_workers_that_live_on_hear_of_the_next_epoch(tmp_path: Path) -> None:
    data = ready(with_contents(tmp_path, 16, 200), batch_size=1, num_workers=1)
    loader = data.train_dataloader()
    seen = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        [batch] = list(loader)
        seen.append(batch.contents)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_the_style_is_resized_by_its_longer_side_and_not_repeated_in_memory(tmp_path: Path) -> None:
    data = ready(with_contents(tmp_path, 20, 20, count=9))
    batch = data.splits["train"].__getitems__([0, 3, 2])
    assert batch.styles.shape == (3, 3, 40, 60)
    assert batch.styles.stride(0) == 0
    with Image.open(tmp_path / "style.png") as style:
        expected = np.asarray(style.resize((60, 40), Image.Resampling.BILINEAR))
    assert np.array_equal(batch.styles[2].permute(1, 2, 0).numpy(), expected)
    scaled = data.transform(batch, training=True)
    assert scaled.styles.shape == (3, 3, 40, 60)
    assert scaled.styles.stride(0) == 0
    assert scaled.styles.dtype == scaled.contents.dtype == torch.float32
    torch.testing.assert_close(scaled.styles[1], batch.styles[1] / 255)
    torch.testing.assert_close(scaled.contents, batch.contents / 255)


def test_folds_divide_what_may_be_trained_on(arguments: dict[str, Any]) -> None:
    whole: Any = ready(arguments)
    may = {*whole.splits["train"].inputs, *whole.splits["val"].inputs}
    seen: list[str] = []
    for number in range(1, 4):
        data: Any = ready(arguments, fold=f"{number}/3")
        train, val = data.splits["train"], data.splits["val"]
        assert {*train.inputs, *val.inputs} == may
        assert not {*train.inputs} & {*val.inputs}
        middle = val.__getitems__([0]).contents
        train.set_epoch(1)
        val_again = ready(arguments, fold=f"{number}/3").splits["val"].__getitems__([0]).contents
        assert torch.equal(middle, val_again)
        seen += val.inputs
    assert sorted(seen) == sorted(may)


def test_inputs_keep_their_sizes_and_come_one_at_a_time(tmp_path: Path) -> None:
    names = [str(save(tmp_path / f"{width}.png", width, height)) for width, height in ((30, 20), (7, 90), (1, 1))]
    data = StyleImages(root=str(tmp_path / "nowhere"), style="gone.png", batch_size=8)
    data.inputs = names
    data.setup("predict")
    batches = [data.transform(batch, training=False) for batch in data.predict_dataloader()]
    assert [tuple(batch.contents.shape) for batch in batches] == [(1, 3, 20, 30), (1, 3, 90, 7), (1, 3, 1, 1)]
    assert all(batch.styles.shape == (1, 3, 0, 0) for batch in batches)
    assert data.batch_size == 8


def test_inputs_of_too_many_pixels_are_reduced_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [str(save(tmp_path / f"{width}.png", width, height)) for width, height in ((2000, 10), (300, 200), (20, 9))]
    data = StyleImages(max_pixels=6000)
    caplog.set_level("INFO", logger="leyden")
    source = data.load_inputs(names)
    sizes = [source.content(index).size for index in range(3)]
    assert sizes == [(1095, 5), (94, 63), (20, 9)]
    assert "2 of 3 pictures have more than 6000 pixels" in caplog.text
    assert names[0] in caplog.text
    assert source.picture(1).size == (300, 200)


def test_a_very_wide_content_is_cropped(tmp_path: Path) -> None:
    arguments = with_contents(tmp_path, 20_000, 16)
    batch = ready(arguments).splits["val"].__getitems__([0])
    assert batch.contents.shape == (1, 3, 16, 16)


GREY = Image.new("RGB", (20, 18), (90, 90, 90))


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("grey.png", GREY.convert("L")),
        ("sixteen.png", Image.fromarray(np.full((18, 20), 90 * 257, np.uint16))),
        ("palette.gif", GREY.quantize(4)),
        ("transparent.png", GREY.convert("RGBA")),
        ("print.jpg", GREY.convert("CMYK")),
    ],
)
def test_any_kind_of_picture_becomes_rgb(tmp_path: Path, name: str, picture: Image.Image) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        path = tmp_path / "photos" / f"{number}_{name}"
        picture.save(path)
    style = tmp_path / name
    style.write_bytes(path.read_bytes())
    data = ready({"root": str(path.parent), "style": str(style), "image_size": 16, "style_size": 20})
    batch = data.splits["train"].__getitems__([0])
    for pixels in (batch.contents, batch.styles):
        assert pixels.shape[:2] == (1, 3)
        assert int((pixels.int() - 90).abs().max()) <= 2


def test_the_first_frame_of_an_animated_picture_counts(tmp_path: Path) -> None:
    arguments = with_contents(tmp_path, 20, 20)
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "style.gif", save_all=True, append_images=frames[1:])
    batch = ready(arguments, style=str(tmp_path / "style.gif")).splits["val"].__getitems__([0])
    assert batch.styles[0, :, 3, 3].tolist() == [255, 0, 0]


def test_a_checkpoint_serves_contents_from_elsewhere_in_its_own_style(tmp_path: Path) -> None:
    arguments = with_contents(tmp_path, 20, 20)
    trained = StyleFacts((("other", "style.png", 256, 256),))
    data = StyleImages(**arguments)
    data.trained_facts = trained
    assert data.describe() == trained
    data.trained_facts = StyleFacts((("other", "oak.jpg", 256, 256),))
    assert data.describe() == StyleFacts((("photos", "style.png", 16, 16),))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"image_size": 0}, "image_size is 0; it must be from 16 to 4096 pixels"),
        ({"style_size": -5}, "style_size is -5"),
        ({"val_fraction": 0.0}, "both must be above 0"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "their sum below 1"),
        ({"max_pixels": 0}, "max_pixels is 0"),
    ],
)
def test_values_out_of_range(options: dict[str, Any], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        StyleImages(**options)


def test_what_is_not_given(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"needs the folder of your content pictures: --data\.root"):
        StyleImages(style=arguments["style"]).setup("fit")
    with pytest.raises(UsageError, match=r"needs a style picture: --data\.style"):
        StyleImages(root=arguments["root"]).setup("fit")


def test_what_cannot_be_used(tmp_path: Path) -> None:
    arguments = with_contents(tmp_path, 20, 20)

    def read(**more: Any) -> None:
        data = ready(arguments, **more)
        for split in SPLITS:
            data.splits[split].__getitems__([0])

    def error(**more: Any) -> str:
        with pytest.raises(DataError) as caught:
            read(**more)
        return str(caught.value)

    assert "nowhere: no such folder" in error(root=str(tmp_path / "nowhere"))
    assert error(style=str(tmp_path / "none.png")) == f"{tmp_path / 'none.png'}: no such file."
    for name, width, height in (("dot.png", 1, 1), ("line.png", 500, 9)):
        assert f"{name}: {width} x {height} pixels, expected at least 16" in error(
            style=str(save(tmp_path / name, width, height))
        )
    wide = str(save(tmp_path / "wide.png", 20_000, 16))
    assert "wide.png: 20000 x 16 pixels, which with style_size 60 would become 60 x 0" in error(style=wide)
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    assert "text.png: is not a picture" in error(style=str(text))
    small = with_contents(tmp_path / "small", 1, 1)["root"]
    assert ".png: 1 x 1 pixels, expected at least 16" in error(root=small)
    save(tmp_path / "few" / "one.png", 20, 20)
    assert "few: 1 pictures, expected at least 3" in error(root=str(tmp_path / "few"))
