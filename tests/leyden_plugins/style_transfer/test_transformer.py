"""The image transformation network: its layers, any size, each picture by itself, no checkerboard."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leyden_plugins.style_transfer.networks.transformer import ImageTransformNet, ResidualBlock, upsample


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shaken(net: nn.Module) -> nn.Module:
    """A network whose norms do more than they do at the start."""
    for layer in net.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            nn.init.normal_(layer.weight, 1, 0.3)
            nn.init.normal_(layer.bias, 0, 0.3)
    return net.eval()


def painted(net: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = net(images)
    return found


def test_its_convolutions_are_those_of_the_paper() -> None:
    """Johnson et al., supplementary material, table 1: channels, kernel, stride."""
    expected = [(3, 32, 9, 1), (32, 64, 3, 2), (64, 128, 3, 2), *[(128, 128, 3, 1)] * 10]
    ends = {"nearest": [(128, 64, 3, 1), (64, 32, 3, 1)], "transposed": [(128, 64, 3, 2), (64, 32, 3, 2)]}
    for upsampling, end in ends.items():
        layers = ImageTransformNet(3, upsampling=upsampling).modules()  # type: ignore[arg-type]
        convs = [layer for layer in layers if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        found = [(conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0]) for conv in convs]
        assert found == [*expected, *end, (32, 3, 9, 1)]


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (8, 8), (45, 71), (64, 32)])
def test_a_picture_of_any_size_is_painted_at_its_size_in_0_to_1(upsampling: str, size: tuple[int, int]) -> None:
    net = shaken(ImageTransformNet(3, width=8, num_blocks=1, upsampling=upsampling))  # type: ignore[arg-type]
    nn.init.normal_(net.decode[-1].weight, 0, 2)  # so that both ends are reached
    found = painted(net, torch.rand(2, 3, *size))
    assert found.shape == (2, 3, *size)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    if min(size) > 1:
        assert float(found.max() - found.min()) > 0.9


def test_a_size_that_cannot_be_halved_twice_is_continued_by_its_border() -> None:
    net = shaken(ImageTransformNet(3, width=4, num_blocks=1))
    image = torch.rand(1, 3, 13, 18)
    larger = torch.cat([image, image[..., -1:].expand(-1, -1, -1, 2)], dim=3)
    larger = torch.cat([larger, larger[:, :, -1:].expand(-1, -1, 3, -1)], dim=2)
    torch.testing.assert_close(painted(net, image), painted(net, larger)[..., :13, :18])


@pytest.mark.parametrize("training", [True, False])
def test_each_picture_is_normalized_by_itself(training: bool) -> None:
    net = shaken(ImageTransformNet(3, width=8, num_blocks=2)).train(training)
    images = torch.rand(3, 3, 32, 40)
    together = painted(net, images)
    torch.testing.assert_close(painted(net, images[1:2]), together[1:2], rtol=1e-4, atol=1e-5)
    paler = 0.5 * images + 0.3  # contrast and brightness are taken away by the first norm
    torch.testing.assert_close(painted(net, paler), together, rtol=0, atol=2e-2)
    assert not torch.allclose(together[0], together[1], atol=5e-2)


def test_a_blank_picture_shows_neither_checkerboard_nor_border() -> None:
    """Odena et al.: a transposed convolution whose stride does not divide its kernel overlaps unevenly."""
    blank = torch.full((1, 3, 32, 32), 0.7)
    spread = {}
    for upsampling in ("nearest", "transposed"):
        net = shaken(ImageTransformNet(3, width=8, num_blocks=1, upsampling=upsampling))  # type: ignore[arg-type]
        found = painted(net, blank)
        spread[upsampling] = float((found - found.mean(dim=(2, 3), keepdim=True)).abs().max())
    assert spread["nearest"] < 1e-4
    assert spread["transposed"] > 1e-2


def test_upsampling_repeats_each_place_before_it_convolves() -> None:
    layers = nn.Sequential(*upsample(3, 5, "nearest"))
    conv, norm = layers[1], layers[2]
    x = torch.rand(2, 3, 4, 6)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    mirrored = F.pad(repeated, (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(layers(x), norm(F.conv2d(mirrored, conv.weight)).relu())


def test_a_block_adds_to_its_input() -> None:
    block = ResidualBlock(6)
    x = torch.randn(2, 6, 8, 8)
    nn.init.zeros_(block.residual[-1].weight)
    assert torch.equal(block(x), x)  # negative numbers too: no ReLU follows
    nn.init.constant_(block.residual[-1].bias, 0.5)
    torch.testing.assert_close(block(x), x + 0.5)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"width": 0}, "width is 0"),
        ({"num_blocks": 0}, "num_blocks is 0"),
        ({"upsampling": "bilinear"}, "upsampling is 'bilinear', expected one of nearest, transposed"),
    ],
)
def test_bad_options(options: dict[str, object], found: str) -> None:
    with pytest.raises(ValueError, match=found):
        ImageTransformNet(3, **options)  # type: ignore[arg-type]


def test_with_a_skip_what_is_painted_is_added_to_the_picture() -> None:
    net = ImageTransformNet(3, width=4, num_blocks=1, skip=True).eval()
    images = torch.rand(2, 3, 21, 34, generator=torch.Generator().manual_seed(0))
    plain = ImageTransformNet(3, width=4, num_blocks=1).eval()
    plain.load_state_dict(net.state_dict())
    expected = torch.sigmoid(2 * (torch.atanh(2 * plain(images) - 1) + 2 * images - 1))
    torch.testing.assert_close(net(images), expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        for parameter in net.decode[-1].parameters():  # type: ignore[union-attr]
            parameter.zero_()
    torch.testing.assert_close(net(images), torch.sigmoid(4 * images - 2), atol=1e-6, rtol=0)
