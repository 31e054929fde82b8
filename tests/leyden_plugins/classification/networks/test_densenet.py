import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leyden_plugins.classification.networks.densenet import DenseNet


def test_block_shapes_at_96_pixels(shapes_through):
    net = DenseNet(1, 10)
    assert shapes_through([net.stem, *net.blocks, net.classifier], torch.randn(2, 1, 96, 96)) == [
        (64, 24, 24),
        (192, 24, 24),
        (96, 12, 12),
        (224, 12, 12),
        (112, 6, 6),
        (240, 6, 6),
        (120, 3, 3),
        (248, 3, 3),
        (10,),
    ]


def test_parameter_count():
    expected = 49 * 64 + 2 * 64
    for before in (64, 96, 112, 120):
        expected += sum(2 * inputs + 9 * inputs * 32 for inputs in range(before, before + 4 * 32, 32))
    expected += sum(2 * c + c * c // 2 for c in (192, 224, 240))
    expected += 2 * 248 + 248 * 10 + 10
    assert sum(p.numel() for p in DenseNet(1, 10).parameters()) == expected


def test_logits_are_those_of_the_formula():
    net = DenseNet(3, 10, growth_rate=4, block_counts=[2, 3], stem_channels=6)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    w = iter(net.parameters())

    def norm_relu(x):
        return F.relu(F.batch_norm(x, None, None, next(w), next(w), training=True))

    def dense(x, count):
        for _ in range(count):
            x = torch.cat([x, F.conv2d(norm_relu(x), next(w), padding=1)], 1)
        return x

    images = torch.randn(4, 3, 40, 32)
    x = F.max_pool2d(norm_relu(F.conv2d(images, next(w), stride=2, padding=3)), 3, 2, padding=1)
    x = dense(x, 2)
    x = F.avg_pool2d(F.conv2d(norm_relu(x), next(w)), 2)
    x = norm_relu(dense(x, 3)).mean((2, 3))
    torch.testing.assert_close(net(images), F.linear(x, next(w), next(w)))


def test_smallest_images():
    net = DenseNet(1, 10).eval()
    assert net(torch.randn(1, 1, 29, 29)).shape == (1, 10)
    with pytest.raises(RuntimeError, match="too small"):
        net(torch.randn(1, 1, 28, 28))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growth_rate": 0}, "growth_rate is 0"),
        ({"block_counts": [4, 0]}, r"block_counts is \[4, 0\]"),
        ({"stem_channels": -1}, "stem_channels is -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        DenseNet(1, 10, **options)
