import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leyden_plugins.classification.networks.googlenet import GoogLeNet, Inception

# Table 1 of the paper: inputs, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection; None is a max pooling.
TABLE = [
    (192, 64, 96, 128, 16, 32, 32),
    (256, 128, 128, 192, 32, 96, 64),
    None,
    (480, 192, 96, 208, 16, 48, 64),
    (512, 160, 112, 224, 24, 64, 64),
    (512, 128, 128, 256, 24, 64, 64),
    (512, 112, 144, 288, 32, 64, 64),
    (528, 256, 160, 320, 32, 128, 128),
    None,
    (832, 256, 160, 320, 32, 128, 128),
    (832, 384, 192, 384, 48, 128, 128),
]


def test_stage_shapes_at_96_pixels(shapes_through):
    net = GoogLeNet(1, 10)
    stages = [net.stage1, net.stage2, net.stage3, net.stage4, net.stage5, net.classifier]
    assert shapes_through(stages, torch.randn(1, 1, 96, 96)) == [
        (64, 24, 24),
        (192, 12, 12),
        (480, 6, 6),
        (832, 3, 3),
        (1024, 3, 3),
        (10,),
    ]


def test_parameter_count():
    def conv(inputs, outputs, size):
        return outputs * (inputs * size**2 + 1)

    expected = conv(1, 64, 7) + conv(64, 64, 1) + conv(64, 192, 3) + 10 * 1025
    for inputs, one, reduce3, three, reduce5, five, pool in filter(None, TABLE):
        expected += conv(inputs, one, 1) + conv(inputs, reduce3, 1) + conv(reduce3, three, 3)
        expected += conv(inputs, reduce5, 1) + conv(reduce5, five, 5) + conv(inputs, pool, 1)
    assert sum(p.numel() for p in GoogLeNet(1, 10).parameters()) == expected


def test_logits_are_those_of_the_formula():
    net = GoogLeNet(3, 10)
    w = iter(net.parameters())

    def conv(x, **geometry):
        return F.relu(F.conv2d(x, next(w), next(w), **geometry))

    def pool(x):
        return F.max_pool2d(x, 3, 2, padding=1)

    images = torch.randn(2, 3, 64, 48)
    x = pool(conv(images, stride=2, padding=3))
    x = pool(conv(conv(x), padding=1))
    for row in TABLE:
        if row is None:
            x = pool(x)
            continue
        paths = [conv(x), conv(conv(x), padding=1), conv(conv(x), padding=2), conv(F.max_pool2d(x, 3, 1, padding=1))]
        x = torch.cat(paths, 1)
    torch.testing.assert_close(net(images), F.linear(x.mean((2, 3)), next(w), next(w)))


def test_inception_keeps_the_image_size():
    block = Inception(8, 1, (2, 3), (2, 5), 7)
    assert block(torch.randn(1, 8, 5, 9)).shape == (1, 1 + 3 + 5 + 7, 5, 9)


def test_dropout_before_the_last_layer():
    assert isinstance(GoogLeNet(1, 10).classifier[2], nn.Dropout)
    assert GoogLeNet(1, 10, dropout=0.4).classifier[2].p == 0.4
    with pytest.raises(ValueError, match="dropout is 4, expected a probability"):
        GoogLeNet(1, 10, dropout=4)
