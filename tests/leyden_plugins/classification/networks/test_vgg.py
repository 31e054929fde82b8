import pytest
import torch
import torch.nn.functional as F
import torchvision

from leyden_plugins.classification.networks.vgg import VGG

SMALL = {"width_factor": 0.125, "hidden_size": 32}


def test_block_shapes_at_224_pixels(shapes_through):
    with torch.device("meta"):
        net = VGG(1, 10)
        shapes = shapes_through([*net.features, *net.classifier], torch.zeros(1, 1, 224, 224))
    blocks = [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]
    assert shapes[:6] == [*blocks, (512, 7, 7)]
    assert shapes[6] == (25088,)
    assert shapes[-1] == (10,)


@pytest.mark.parametrize(
    ("name", "counts"),
    [("VGG11", (1, 1, 2, 2, 2)), ("VGG13", (2, 2, 2, 2, 2)), ("VGG16", (2, 2, 3, 3, 3)), ("VGG19", (2, 2, 4, 4, 4))],
)
def test_published_parameter_counts(name, counts):
    published = getattr(torchvision.models, f"{name}_Weights").IMAGENET1K_V1.meta["num_params"]
    with torch.device("meta"):
        net = VGG(3, 1000, conv_blocks=list(zip(counts, (64, 128, 256, 512, 512), strict=True)))
    assert sum(p.numel() for p in net.parameters()) == published


def test_default_is_vgg_11():
    with torch.device("meta"):
        assert sum(p.numel() for p in VGG(3, 1000).parameters()) == 132_863_336


def test_the_book_s_quarter_width(shapes_through):
    with torch.device("meta"):
        shapes = shapes_through(VGG(1, 10, width_factor=0.25).features, torch.zeros(1, 1, 224, 224))
    assert [shape[0] for shape in shapes[:5]] == [16, 32, 64, 128, 128]


def test_logits_are_those_of_the_formula():
    net = VGG(3, 10, conv_blocks=[(1, 8), (2, 16)], hidden_size=32).eval()
    w = list(net.parameters())
    images = torch.randn(2, 3, 28, 28)
    x = F.max_pool2d(F.relu(F.conv2d(images, w[0], w[1], padding=1)), 2)
    x = F.relu(F.conv2d(x, w[2], w[3], padding=1))
    x = F.max_pool2d(F.relu(F.conv2d(x, w[4], w[5], padding=1)), 2).flatten(1)
    for layer in (6, 8):
        x = F.relu(F.linear(x, w[layer], w[layer + 1]))
    torch.testing.assert_close(net(images), F.linear(x, w[10], w[11]))


def test_one_pixel_is_enough_and_none_is_not():
    net = VGG(1, 10, **SMALL)
    assert net(torch.randn(2, 1, 32, 50)).shape == (2, 10)
    with pytest.raises(RuntimeError, match="too small"):
        net(torch.randn(2, 1, 31, 31))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conv_blocks": []}, r"conv_blocks is \[\], expected pairs"),
        ({"conv_blocks": [(1, 64), (0, 128)]}, "expected pairs"),
        ({"conv_blocks": [(1, 64, 3)]}, "expected pairs"),
        ({"width_factor": 0.0}, "width_factor is 0.0, expected a number above 0"),
        ({"hidden_size": -1}, "hidden_size is -1"),
        ({"dropout": 2}, "dropout is 2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        VGG(1, 10, **options)
