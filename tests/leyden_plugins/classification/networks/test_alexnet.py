import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leyden_plugins.classification.networks.alexnet import AlexNet


def test_layer_shapes_at_224_pixels(shapes_through):
    with torch.device("meta"):
        net = AlexNet(1, 10)
        layers = [layer for layer in [*net.features, *net.classifier] if not isinstance(layer, nn.ReLU | nn.Dropout)]
        shapes = shapes_through(layers, torch.zeros(1, 1, 224, 224))
    assert shapes == [
        (96, 54, 54),
        (96, 26, 26),
        (256, 26, 26),
        (256, 12, 12),
        (384, 12, 12),
        (384, 12, 12),
        (256, 12, 12),
        (256, 5, 5),
        (256, 5, 5),
        (6400,),
        (4096,),
        (4096,),
        (10,),
    ]


def test_parameter_count():
    with torch.device("meta"):
        count = sum(p.numel() for p in AlexNet(1, 10).parameters())
    convs = 96 * 122 + 256 * (96 * 25 + 1) + 384 * (256 * 9 + 1) + 384 * (384 * 9 + 1) + 256 * (384 * 9 + 1)
    assert count == convs + 4096 * 6401 + 4096 * 4097 + 10 * 4097 == 46_764_746


def test_logits_are_those_of_the_formula():
    net = AlexNet(3, 10, hidden_size=64).eval()
    w = list(net.parameters())
    images = torch.randn(1, 3, 224, 224)
    x = F.max_pool2d(F.relu(F.conv2d(images, w[0], w[1], stride=4, padding=1)), 3, 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, w[2], w[3], padding=2)), 3, 2)
    for layer in (4, 6, 8):
        x = F.relu(F.conv2d(x, w[layer], w[layer + 1], padding=1))
    x = F.max_pool2d(x, 3, 2).flatten(1)
    for layer in (10, 12):
        x = F.relu(F.linear(x, w[layer], w[layer + 1]))
    torch.testing.assert_close(net(images), F.linear(x, w[14], w[15]))


def test_dropout_is_half_and_only_in_training():
    dropouts = [layer.p for layer in AlexNet(1, 2, hidden_size=4).modules() if isinstance(layer, nn.Dropout)]
    assert dropouts == [0.5, 0.5]
    net = AlexNet(1, 10, hidden_size=64)
    x = torch.randn(1, 1, 96, 96)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_smaller_images():
    net = AlexNet(1, 10, hidden_size=8)
    assert net(torch.randn(2, 1, 65, 96)).shape == (2, 10)
    with pytest.raises(RuntimeError, match="too small"):
        net(torch.randn(2, 1, 28, 28))


def test_bad_options():
    with pytest.raises(ValueError, match=r"hidden_size is 0, expected a number of at least 1"):
        AlexNet(1, 10, hidden_size=0)
    with pytest.raises(ValueError, match=r"dropout is -0.5, expected a probability from 0 to 1"):
        AlexNet(1, 10, dropout=-0.5)
