"""Canvas: layers add up to a picture, coarse ones enlarged; colours that are kept."""

import pytest
import torch
from torch import Tensor

from leyden_plugins.style_transfer.networks.canvas import Canvas, luminance, resized, stage_size


def picture(height: int = 24, width: int = 36, seed: int = 0) -> Tensor:
    """A smooth picture (1, 3, H, W), which small sizes show as well."""
    generator = torch.Generator().manual_seed(seed)
    return resized(torch.rand(1, 3, 3, 4, generator=generator), (height, width))


@pytest.mark.parametrize(
    ("size", "stages", "expected"),
    [
        ((300, 450), 1, [(300, 450)]),
        ((300, 450), 3, [(75, 112), (150, 225), (300, 450)]),
        ((3, 3), 4, [(1, 1), (1, 1), (2, 2), (3, 3)]),
    ],
)
def test_sizes_double(size: tuple[int, int], stages: int, expected: list[tuple[int, int]]) -> None:
    assert [stage_size(size, stage, stages) for stage in range(stages)] == expected
    canvas = Canvas([size], stages)
    assert [tuple(layer.shape) for layer in canvas.parameters()] == [(1, 3, *each) for each in expected]


def test_it_begins_with_a_picture() -> None:
    canvas = Canvas([(24, 36), (20, 20)])
    assert canvas.finest() == -1
    canvas.start(0, picture(), picture())
    assert canvas.finest() == 0
    torch.testing.assert_close(canvas([0], 0), picture())
    torch.testing.assert_close(canvas.picture(0), picture())
    torch.testing.assert_close(canvas.finished(0), picture(), atol=0.5001 / 255, rtol=0)
    mean = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
    torch.testing.assert_close(canvas.picture(1), mean.expand(1, 3, 20, 20))


def test_a_learning_rate_is_in_units_of_the_standard_deviation() -> None:
    """One step of plain gradient descent on a sum of pixels moves each by rate * std, in its turn by rate * std."""
    canvas = Canvas([(4, 4)])
    canvas.start(0, picture(4, 4), picture(4, 4))
    before = canvas([0], 0).detach()
    canvas([0], 0).sum().backward()
    torch.optim.SGD(canvas.parameters(), lr=0.1).step()
    expected = 0.1 * torch.tensor([0.229, 0.224, 0.225]) ** 2
    torch.testing.assert_close((before - canvas([0], 0))[0], expected[:, None, None].expand(3, 4, 4))


def test_a_coarse_picture_is_enlarged_and_then_goes_on() -> None:
    canvas = Canvas([(24, 36)], stages=3)
    canvas.start(0, picture(), picture())
    small = resized(picture(), (6, 9))
    torch.testing.assert_close(canvas([0], 0), small)
    seen = resized(resized(small, (12, 18)), (24, 36))
    torch.testing.assert_close(canvas.picture(0), seen)
    for stage in (1, 2):
        canvas.refine(stage)
        assert canvas.finest() == stage
        torch.testing.assert_close(canvas.picture(0), seen)
        torch.testing.assert_close(canvas([0], stage), resized(small, (12, 18)) if stage == 1 else seen)
        state = {name: value.clone() for name, value in canvas.state_dict().items()}
        canvas.refine(stage)
        assert all(torch.equal(value, state[name]) for name, value in canvas.state_dict().items())


def test_only_the_luminance_is_painted_and_the_colours_stay() -> None:
    canvas = Canvas([(24, 36)], luminance=True)
    content = 0.3 + 0.3 * picture()
    canvas.start(0, content, content)
    torch.testing.assert_close(canvas.finished(0), content, atol=0.5001 / 255, rtol=0)
    grey = canvas.picture(0)
    torch.testing.assert_close(grey, luminance(content).expand(1, 3, 24, 36))
    with torch.no_grad():
        for layer in canvas.parameters():
            assert layer.shape == (1, 1, 24, 36)
            layer.add_(0.2 * torch.rand(layer.shape))
    chroma = torch.tensor([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # I and Q of YIQ
    before, after = (torch.einsum("ic,bchw->bihw", chroma, each) for each in (content, canvas.finished(0)))
    torch.testing.assert_close(before, after, atol=2.4e-3, rtol=0)  # a rounded pixel is off by 1 / 510
    torch.testing.assert_close(luminance(canvas.finished(0)), canvas.picture(0)[:, :1], atol=0.5001 / 255, rtol=0)
    assert not torch.equal(canvas.finished(0), content)


def test_what_is_shown_is_clamped() -> None:
    canvas = Canvas([(24, 36)])
    canvas.start(0, 3 * picture() - 1, picture())
    assert canvas.picture(0).min() < 0
    assert canvas.picture(0).max() > 1
    expected = (3 * picture() - 1).clamp(0, 1)
    torch.testing.assert_close(canvas.finished(0), expected, atol=0.5001 / 255, rtol=0)
    levels = 255 * canvas.finished(0)
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)


def test_pixels_are_brought_back_to_what_can_be_shown() -> None:
    canvas = Canvas([(24, 36), (20, 20)], stages=2)
    for index in (0, 1):
        canvas.start(index, 3 * picture() - 1, picture())
    before = [canvas([index], 0).detach() for index in (0, 1)]
    canvas.clamp_(0)
    for index in (0, 1):
        torch.testing.assert_close(canvas([index], 0), before[index].clamp(0, 1))
    inside = Canvas([(24, 36)])
    inside.start(0, picture(), picture())
    state = inside.layers[0][0].clone()  # type: ignore[index]
    inside.clamp_(0)
    assert torch.equal(state, inside.layers[0][0]), "not a bit of what can be shown"  # type: ignore[index]


@pytest.mark.parametrize("stage", [0, 1])
def test_with_colours_that_are_kept_it_is_their_sum_that_can_be_shown(stage: int) -> None:
    canvas = Canvas([(24, 36)], stages=2, luminance=True)
    canvas.start(0, picture(), picture())
    canvas.refine(stage)
    with torch.no_grad():
        canvas.layers[0][stage].copy_(5 * torch.randn(canvas.layers[0][stage].shape))  # type: ignore[index]
    canvas.clamp_(stage)
    colours = resized(canvas.get_buffer("colours_0"), stage_size((24, 36), stage, 2))
    shown = canvas([0], stage) + colours
    assert shown.min() > -1e-5
    assert shown.max() < 1 + 1e-5
    at_an_end = ((shown.amin(dim=1) < 1e-5) | (shown.amax(dim=1) > 1 - 1e-5)).float().mean()
    assert at_an_end > 0.5, "no further in than needed"


def test_luminance_is_that_of_bt_601() -> None:
    colours = torch.eye(3)[:, :, None, None]
    torch.testing.assert_close(luminance(colours).flatten(), torch.tensor([0.299, 0.587, 0.114]))
    assert luminance(torch.full((1, 3, 1, 1), 0.7)).item() == pytest.approx(0.7)
