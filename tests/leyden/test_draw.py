"""Pictures for people: sizes, colours, what is where; by looking at the pixels and at the figures' contents."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from leyden import draw


def rgb(name: str) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in to_rgb(name))
    return red, green, blue


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_a_caption_stands_below_the_picture_in_its_colour(mode: str) -> None:
    found = draw.captioned(Image.new(mode, (200, 170)), "a cat", draw.RIGHT)
    assert found.mode == "RGB"
    assert found.width == 200
    assert found.height > 170
    assert found.getpixel((0, 169)) == (0, 0, 0)
    assert found.getpixel((199, found.height - 1)) == rgb(draw.RIGHT)
    below = found.crop((0, 170, 200, found.height))
    assert (255, 255, 255) in {pixel for _, pixel in below.getcolors(10**5)}, "the text is white"


def test_small_pictures_are_enlarged_without_blur() -> None:
    picture = Image.new("L", (28, 28))
    picture.putpixel((3, 5), 255)
    found = draw.captioned(picture, "dress")
    scale = found.width // 28
    assert scale * 28 >= draw.SMALLEST_SIDE - 28
    shown = found.crop((0, 0, 28 * scale, 28 * scale)).convert("L")
    assert shown.getcolors() == [(28 * 28 * scale**2 - scale**2, 0), (scale**2, 255)]
    assert shown.getpixel((3 * scale, 5 * scale)) == 255


def test_long_captions_are_set_smaller() -> None:
    short, long = (draw.captioned(Image.new("L", (160, 160)), text) for text in ("dress", "dress, not " * 5))
    assert long.width == short.width
    assert long.height < short.height


@given(count=st.integers(1, 9), columns=st.integers(1, 5))
def test_a_grid_has_a_tile_for_each_picture(count: int, columns: int) -> None:
    pictures = [Image.new("RGB", (20, 10), (index + 1, 0, 0)) for index in range(count)]
    found = draw.grid(pictures, columns)
    across, down = min(columns, count), -(-count // columns)
    assert found.size == (across * 24 + 4, down * 14 + 4)
    for index in range(count):
        corner = (4 + 24 * (index % columns), 4 + 14 * (index // columns))
        assert found.getpixel(corner) == (index + 1, 0, 0)


def test_pictures_of_other_sizes_are_fitted_into_the_first_ones_tile() -> None:
    found = draw.grid([Image.new("L", (20, 10)), Image.new("RGBA", (100, 10), "red"), Image.new("1", (2, 2))], 3)
    assert found.size == (3 * 24 + 4, 10 + 8)
    assert found.getpixel((28, 4)) == (255, 0, 0)
    assert found.getpixel((28, 13)) == (255, 255, 255), "below the flat picture the tile is white"


def test_curves_have_a_panel_for_each_metric_and_a_line_for_each_stage() -> None:
    series = {
        "train/loss": [(1.0, 2.0), (2.0, 1.0)],
        "val/loss": [(1.0, 2.5), (2.0, 1.5)],
        "val/accuracy": [(1.0, 0.25), (2.0, 0.5)],
        "lr": [(1.0, 0.1), (2.0, 0.1)],
    }
    figure = draw.curves(series, {"val/accuracy": (2.0, 0.5)})
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["loss", "accuracy", "lr"]
    lines = {line.get_label(): line for line in panels["loss"].get_lines()}
    assert set(lines) == {"train", "val"}
    assert lines["val"].get_xydata().tolist() == [[1.0, 2.5], [2.0, 1.5]]
    [best] = [line for line in panels["accuracy"].get_lines() if line.get_label() == "best"]
    assert best.get_xydata().tolist() == [[2.0, 0.5]]
    assert all(line.get_label() != "best" for line in panels["loss"].get_lines())


def test_a_group_that_is_no_stage_shares_one_panel_behind_the_others() -> None:
    series = {
        "gradient_norm/features.0.weight": [(1.0, 1e-3), (2.0, 1e-2)],
        "val/loss": [(1.0, 2.5)],
        "gradient_norm/classifier.1.weight": [(1.0, 10.0), (2.0, 0.0)],
        "test/loss": [(1.0, 2.0)],
        "drift/down": [(1.0, -1.0)],
        "drift/up": [(1.0, 2.0)],
        "val/box/loss": [(1.0, 3.0)],
    }
    figure = draw.curves(series, {"val/box/loss": (1.0, 3.0)})
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["loss", "box/loss", "gradient_norm", "drift"]
    labels = {title: [line.get_label() for line in axes.get_lines()] for title, axes in panels.items()}
    assert labels["gradient_norm"] == ["features.0.weight", "classifier.1.weight"]
    assert labels["loss"] == ["val", "test"]
    assert labels["box/loss"] == ["val", "best"]
    scales = {title: axes.get_yscale() for title, axes in panels.items()}
    assert scales == {"loss": "linear", "box/loss": "linear", "gradient_norm": "log", "drift": "linear"}


def test_what_a_group_logs_within_an_epoch_is_spread_over_it() -> None:
    points = [(1.0, 5.0), (1.0, 4.0), (2.0, 3.0), (3.0, 2.0), (3.0, 1.5), (3.0, 1.0), (3.0, 0.5)]
    [axes] = draw.curves({"gradient_norm/weight": points}).axes
    [line] = axes.get_lines()
    assert line.get_xdata().tolist() == [0.5, 1.0, 2.0, 2.25, 2.5, 2.75, 3.0]
    assert line.get_ydata().tolist() == [value for _, value in points]


@pytest.mark.parametrize(("count", "named"), [(1, 1), (8, 8), (9, 3), (300, 3)])
def test_a_large_group_names_a_few_of_its_lines(count: int, named: int) -> None:
    figure = draw.curves({f"gradient_norm/{layer}": [(1.0, 1.0 + layer)] for layer in range(count)})
    [axes] = figure.axes
    assert len(axes.get_lines()) == count
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(texts) == named
    assert {texts[0], texts[-1]} == {"0", str(count - 1)}


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_group_without_any_size_can_be_drawn(value: float, tmp_path: Path) -> None:
    draw.save(draw.curves({"gradient_norm/weight": [(1.0, value), (2.0, value)]}), tmp_path / "curves.png")


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_curves_of_any_number(count: int, tmp_path: Path) -> None:
    series = {f"val/metric{index}": [(1.0, float("nan")), (2.0, 3.0)] for index in range(count)}
    figure = draw.curves(series)
    assert len(figure.axes) == count
    draw.save(figure, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width == 420 * min(3, count)


def test_a_confusion_matrix_shows_counts_and_shades_by_the_share_of_the_row() -> None:
    counts = torch.tensor([[30, 10, 0], [0, 0, 0], [1, 2, 5]])
    figure = draw.matrix(counts, ["cat", "dog", "eel"], "a title")
    [axes] = figure.axes
    shares = axes.get_images()[0].get_array()
    assert shares.tolist() == [[0.75, 0.25, 0.0], [0.0, 0.0, 0.0], [0.125, 0.25, 0.625]]
    texts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axes.texts}
    assert texts == {(row, column): str(int(counts[row, column])) for row in range(3) for column in range(3)}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "eel"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("predicted", "true", "a title")


def test_a_matrix_of_many_classes_has_no_numbers() -> None:
    names = [str(index) for index in range(31)]
    assert len(draw.matrix(torch.eye(31, dtype=torch.int64), names, "").axes[0].texts) == 0


def test_saving_makes_the_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    draw.save(Image.new("RGB", (3, 2), "red"), tmp_path / "a" / "b" / "picture.png")
    draw.save(Figure(figsize=(1, 1), dpi=50), tmp_path / "a" / "b" / "figure.png")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["figure.png", "picture.png"]
    with Image.open(tmp_path / "a" / "b" / "picture.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (3, 2))
    with Image.open(tmp_path / "a" / "b" / "figure.png") as picture:
        assert picture.size == (50, 50)


@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (1, 1), (300, 1)])
def test_a_thin_picture_is_not_blown_up(size: tuple[int, int]) -> None:
    width, height = draw.captioned(Image.new("L", size), "a caption").size
    assert width <= 1000
    assert height <= 1100
