import pytest
import torch
import torch.nn.functional as F

from leyden_plugins.classification.networks.nin import NiN


def test_layer_shapes_at_224_pixels(shapes_through):
    net = NiN(1, 10)
    shapes = shapes_through([*net.features, *net.classifier], torch.randn(1, 1, 224, 224))
    assert shapes == [
        (96, 54, 54),
        (96, 26, 26),
        (256, 26, 26),
        (256, 12, 12),
        (384, 12, 12),
        (384, 5, 5),
        (384, 5, 5),
        (10, 5, 5),
        (10, 1, 1),
        (10,),
    ]


def test_parameter_count():
    expected = sum(
        outputs * (inputs * size**2 + 1) + 2 * outputs * (outputs + 1)
        for inputs, outputs, size in ((1, 96, 11), (96, 256, 5), (256, 384, 3), (384, 10, 3))
    )
    assert sum(p.numel() for p in NiN(1, 10).parameters()) == expected == 1_992_166


def test_logits_are_those_of_the_formula():
    net = NiN(3, 10).eval()
    w = iter(net.parameters())

    def block(x, **geometry):
        x = F.relu(F.conv2d(x, next(w), next(w), **geometry))
        for _ in range(2):
            x = F.relu(F.conv2d(x, next(w), next(w)))
        return x

    images = torch.randn(1, 3, 100, 120)
    x = F.max_pool2d(block(images, stride=4), 3, 2)
    x = F.max_pool2d(block(x, padding=2), 3, 2)
    x = F.max_pool2d(block(x, padding=1), 3, 2)
    torch.testing.assert_close(net(images), block(x, padding=1).mean((2, 3)))


def test_too_small_images_raise():
    with pytest.raises(RuntimeError, match="too small"):
        NiN(1, 10)(torch.randn(1, 1, 60, 60))


def test_bad_dropout():
    with pytest.raises(ValueError, match=r"dropout is 1.01, expected a probability from 0 to 1"):
        NiN(1, 10, dropout=1.01)
