"""Pictures for people: sizes, colours, what is where; by looking at the pixels and at the figures' contents."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor

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


def test_wider_pictures_are_shrunk_to_the_first_ones_width() -> None:
    found = draw.grid([Image.new("L", (20, 10)), Image.new("RGBA", (100, 10), "red"), Image.new("1", (2, 2))], 3)
    assert found.size == (3 * 24 + 4, 10 + 8)
    assert found.getpixel((28, 4)) == (255, 0, 0)
    assert found.getpixel((28, 13)) == (255, 255, 255), "below the flat picture the tile is white"


def test_a_row_is_as_high_as_its_highest_picture_but_not_without_end() -> None:
    sizes = [(20, 10), (20, 15), (20, 10), (10, 100)]
    found = draw.grid([Image.new("RGB", size, "red") for size in sizes], 2)
    assert found.size == (2 * 24 + 4, 15 + 20 + 3 * 4)
    assert found.getpixel((28, 4 + 14)) == (255, 0, 0)
    assert found.getpixel((4, 4 + 14)) == (255, 255, 255)
    assert found.getpixel((28, 4 + 15 + 4 + 19)) == (255, 0, 0), (
        "the thin one is shrunk to twice the first one's height"
    )


PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]


def test_a_mask_picture_holds_the_indices_and_shows_the_colours(tmp_path: Path) -> None:
    mask = torch.tensor([[0, 1, 2], [2, 1, 255]], dtype=torch.uint8)
    draw.save(draw.mask_image(mask, PALETTE), tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as picture:
        assert (picture.mode, picture.size) == ("P", (3, 2))
        assert torch.equal(pil_to_tensor(picture)[0], mask)
        colours = picture.convert("RGB")
    assert [colours.getpixel(place) for place in ((0, 0), (1, 0), (2, 0))] == PALETTE
    assert colours.getpixel((2, 1)) == (224, 224, 192), "void as Pascal VOC shows it"


def test_a_mask_is_brought_to_a_pictures_size_without_new_indices() -> None:
    mask = draw.mask_image(torch.tensor([[0, 2]], dtype=torch.uint8), PALETTE)
    found = draw.fitted_mask(mask, Image.new("RGB", (6, 4)))
    assert (found.mode, found.size) == ("P", (6, 4))
    assert pil_to_tensor(found)[0].tolist() == [[0, 0, 0, 2, 2, 2]] * 4
    assert draw.fitted_mask(mask, Image.new("L", (2, 1))) is mask


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_each_pixel_is_tinted_in_the_colour_of_its_class(mode: str) -> None:
    picture = Image.new(mode, (4, 2), "white")
    found = draw.painted(picture, torch.tensor([[0, 1], [2, 255]], dtype=torch.uint8), PALETTE)
    assert (found.mode, found.size) == ("RGB", (4, 2))
    own = 255 * (1 - draw.TINT)
    for place, colour in zip([(0, 0), (2, 0), (1, 1)], PALETTE, strict=True):
        expected = [own + draw.TINT * part for part in colour]
        assert found.getpixel(place) == pytest.approx(expected, abs=1)
    assert found.getpixel((3, 1)) == (255, 255, 255), "void is left as it is"


def test_a_picture_that_is_all_void_is_left_as_it_is() -> None:
    found = draw.painted(Image.new("RGB", (3, 2), "red"), torch.full((2, 3), 255, dtype=torch.uint8), PALETTE)
    assert found.getcolors() == [(6, (255, 0, 0))]


def test_a_legend_stands_below_the_picture_in_as_many_lines_as_needed() -> None:
    picture = Image.new("RGB", (200, 50), "yellow")
    few = draw.with_legend(picture, {"cat 90%": (255, 0, 0)})
    many = draw.with_legend(picture, {f"a class {index}": (255, 0, index) for index in range(10)})
    assert few.width == many.width == 200
    assert 50 < few.height < many.height
    assert few.crop((0, 0, 200, 50)).getcolors() == [(200 * 50, (255, 255, 0))]
    shown = {pixel for _, pixel in many.getcolors(10**5)}
    assert {(255, 0, index) for index in range(10)} <= shown
    assert draw.with_legend(picture, {}).size == (200, 50)


def test_a_long_name_widens_a_legend_rather_than_being_cut_off() -> None:
    found = draw.with_legend(Image.new("RGB", (60, 60)), {"a very long name of a class": (255, 0, 0)})
    assert found.width > 150
    assert found.crop((found.width - 6, 0, found.width, found.height)).getcolors() == [(6 * found.height, (255,) * 3)]


def test_a_long_title_is_not_cut_off() -> None:
    titles = ("a title that is longer than its picture", "another")
    found = draw.side_by_side({title: Image.new("RGB", (20, 10), "red") for title in titles})
    assert found.width > 300
    title = found.height - 10
    [right] = [left for left in range(30, found.width) if found.getpixel((left, title)) == (255, 0, 0)][:1]
    blank = found.crop((right - draw.GAP, 0, right, title))
    assert blank.getcolors() == [(draw.GAP * title, (255, 255, 255))], "the first title ends before the second picture"


def test_pictures_stand_beside_each_other_below_their_titles() -> None:
    panels = {"picture": Image.new("RGB", (90, 30), "red"), "truth": Image.new("RGB", (80, 60), "blue")}
    found = draw.side_by_side(panels)
    title = found.height - 60
    assert found.width == 90 + draw.GAP + 80
    assert found.crop((0, title, 90, title + 30)).getcolors() == [(90 * 30, (255, 0, 0))]
    assert found.crop((94, title, 174, title + 60)).getcolors() == [(80 * 60, (0, 0, 255))]
    for left, right in ((0, 90), (94, 174)):
        assert len(found.crop((left, 0, right, title)).getcolors(10**5)) > 2, "there is a title"


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 360), (480, 360)), ((2000, 1000), (480, 240)), ((1000, 2000), (180, 360)), ((40, 30), (200, 150))],
)
def test_a_panel_is_neither_larger_nor_smaller_than_can_be_seen(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    picture = Image.new("RGBA", size)
    assert draw.panel(picture).size == expected
    assert picture.size == size


def test_bars_are_sorted_and_have_the_colours_of_their_names() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    [axes] = draw.bars({"cat": 0.5, "dog": 0.875, "eel": 0.0}, "a title", colours).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    lengths = [bar.get_width() for bar in axes.patches]
    assert dict(zip(names, lengths, strict=True)) == {"cat": 0.5, "dog": 0.875, "eel": 0.0}
    assert names == ["eel", "cat", "dog"], "the largest on top, which is drawn last"
    fills = {name: bar.get_facecolor()[:3] for name, bar in zip(names, axes.patches, strict=True)}
    assert fills == {"cat": (1, 0, 0), "dog": (0, 1, 0), "eel": (0, 0, 1)}
    assert [text.get_text() for text in axes.texts] == ["0.000", "0.500", "0.875"]
    assert axes.get_title() == "a title"


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


def test_long_counts_are_given_in_percent_of_their_row() -> None:
    figure = draw.matrix(torch.tensor([[3_000_000, 1_000_000], [0, 9]]), ["cat", "dog"], "")
    [axes] = figure.axes
    assert [text.get_text() for text in axes.texts] == ["75.0", "25.0", "", "100.0"]
    assert axes.get_xlabel() == "predicted, in percent of the row"


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


RED, BLUE = "#ff0000", "#0000ff"
FULL_RED, FULL_BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def test_a_frame_lies_on_the_border_of_its_box() -> None:
    picture = Image.new("RGB", (300, 200), "white")
    found = draw.boxed(picture, [[50.0, 40, 150, 160]], [""], [RED])
    inside = {(x, y) for x in range(300) for y in range(200) if found.getpixel((x, y)) == FULL_RED}
    frame = {
        (x, y)
        for x in range(50, 150)
        for y in range(40, 160)
        if min(x - 50, 149 - x, y - 40, 159 - y) < 2  # two pixels wide
    }
    assert inside == frame
    assert picture.getcolors() == [(300 * 200, WHITE)], "the given picture is left as it is"


def test_frames_of_small_pictures_are_enlarged_with_them() -> None:
    found = draw.boxed(Image.new("L", (40, 32), 255), [[10.0, 8, 20, 24]], [""], [RED])
    assert found.size == (200, 160)
    for corner in ((50, 40), (99, 40), (50, 119), (99, 119)):
        assert found.getpixel(corner) == FULL_RED
    for beside in ((49, 40), (100, 40), (50, 39), (50, 120), (75, 80)):
        assert found.getpixel(beside) == WHITE


@pytest.mark.parametrize("size", [(400, 300), (170, 900)])
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_captions_stay_inside_the_picture(size: tuple[int, int], corner: tuple[int, int]) -> None:
    """In the corner there is no room above the box, or to its right: all of the caption is seen nevertheless."""
    width, height = size
    caption = "a cat wider than its box"
    middle = draw.boxed(Image.new("RGB", size), [[20.0, height / 2, 60, height / 2 + 40]], [caption], [RED])
    left, top = corner[0] * (width - 40), corner[1] * (height - 40)
    found = draw.boxed(Image.new("RGB", size), [[left, top, left + 40.0, top + 40.0]], [caption], [RED])
    assert found.size == size
    lettering = [sum(count for count, pixel in each.getcolors(10**6) if min(pixel) > 200) for each in (middle, found)]
    assert lettering[0] == lettering[1] > 20
    assert found.getpixel((left, top + 39 * (1 - corner[1]))) == FULL_RED


def test_a_caption_stands_on_its_box_in_its_colour() -> None:
    found = draw.boxed(Image.new("RGB", (400, 300)), [[100.0, 150, 200, 250]], ["a cat"], [RED])
    above = {(x, y) for x in range(400) for y in range(150) if found.getpixel((x, y)) != (0, 0, 0)}
    assert min(x for x, _ in above) == 100
    assert max(x for x, _ in above) < 200
    assert min(y for _, y in above) > 120
    assert max(y for _, y in above) == 149, "without a gap"
    assert found.getpixel((101, 149)) == FULL_RED


def test_the_first_box_is_above_the_others() -> None:
    boxes = [[50.0, 50, 150, 150], [50.0, 100, 150, 180]]
    found = draw.boxed(Image.new("RGB", (300, 200)), boxes, ["", ""], [RED, BLUE])
    assert found.getpixel((50, 120)) == FULL_RED
    assert found.getpixel((50, 170)) == FULL_BLUE
    turned = draw.boxed(Image.new("RGB", (300, 200)), boxes[::-1], ["", ""], [BLUE, RED])
    assert turned.getpixel((50, 120)) == FULL_BLUE


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_boxes_on_pictures_of_any_mode(mode: str) -> None:
    found = draw.boxed(Image.new(mode, (200, 200)), [[20.0, 20, 90, 90]], ["a cat"], [BLUE])
    assert (found.mode, found.size) == ("RGB", (200, 200))
    assert found.getpixel((20, 80)) == FULL_BLUE


@pytest.mark.parametrize(
    "box",
    [[-50.0, -50, 1000, 1000], [30.0, 30, 30.2, 30.4], [199.9, 199.9, 200, 200], [0.0, 0, 0, 0], [300.0, 0, 400, 9]],
)
@pytest.mark.parametrize("size", [(200, 200), (1, 1), (700, 2)])
def test_any_box_can_be_drawn(box: list[float], size: tuple[int, int]) -> None:
    found = draw.boxed(Image.new("RGB", size), [box], ["a caption that is longer than the picture is wide"], [RED])
    assert found.size == draw.enlarged(Image.new("RGB", size)).size


def test_a_picture_without_boxes_is_only_enlarged() -> None:
    picture = Image.linear_gradient("L").resize((200, 160))
    assert draw.boxed(picture, [], [], []).tobytes() == picture.convert("RGB").tobytes()


def test_each_box_has_a_caption_and_a_colour() -> None:
    with pytest.raises(ValueError, match="shorter"):
        draw.boxed(Image.new("RGB", (200, 200)), [[0.0, 0, 9, 9]], [], [RED])


def test_lines_share_one_panel_and_the_range_of_both_axes() -> None:
    series = {"cat": [(0.0, 1.0), (0.5, 0.25)], "dog": [(0.0, 0.5), (1.0, 0.5)]}
    [axes] = draw.lines(series, "a title", ("recall", "precision"), (0, 1.25)).axes
    drawn = {line.get_label(): line for line in axes.get_lines()}
    assert {name: line.get_xydata().tolist() for name, line in drawn.items()} == {
        name: [list(point) for point in points] for name, points in series.items()
    }
    assert [line.get_color() for line in drawn.values()] == draw.distinct_colours(2)
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("a title", "recall", "precision")
    assert axes.get_xlim() == axes.get_ylim() == (0, 1.25)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cat", "dog"]


def test_lines_with_gaps_can_be_saved(tmp_path: Path) -> None:
    figure = draw.lines({"cat": [(0.0, float("nan")), (1.0, 0.5)]}, "", ("x", "y"), (0, 1))
    draw.save(figure, tmp_path / "lines.png")
    with Image.open(tmp_path / "lines.png") as picture:
        assert picture.size == (600, 500)
