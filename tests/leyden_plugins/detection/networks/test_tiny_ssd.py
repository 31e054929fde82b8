"""TinySSD against the book's network."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leyden_plugins.detection.networks.tiny_ssd import TinySSD


def test_the_book_s_network():
    """Section 14.7.1: the maps' sizes, channels and the numbers of anchors, classes and offsets that it prints."""
    net = TinySSD(3, 1).eval()
    maps = [torch.zeros(2, 3, 256, 256)]
    for stage in net.stages:
        maps.append(stage(maps[-1]))
    assert [tuple(x.shape[1:]) for x in maps[1:]] == [
        (64, 32, 32),
        (128, 16, 16),
        (128, 8, 8),
        (128, 4, 4),
        (128, 1, 1),
    ]
    logits, offsets, map_sizes = net(maps[0])
    assert logits.shape == (2, 5444, 2)
    assert offsets.shape == (2, 5444, 4)
    assert net.anchors.boxes(map_sizes, (256, 256), torch.device("cpu")).shape == (5444, 4)


def test_parameter_count_of_the_book_s_network():
    """The book's convolutions before batch norm have a bias, which changes nothing."""

    def block(inputs, outputs):
        convolutions = 9 * inputs * outputs + 9 * outputs * outputs
        return convolutions + 2 * 2 * outputs

    def heads(channels):
        return (9 * channels + 1) * 4 * (2 + 4)

    stages = block(3, 16) + block(16, 32) + block(32, 64) + block(64, 128) + 2 * block(128, 128)
    expected = stages + heads(64) + 4 * heads(128)
    assert sum(p.numel() for p in TinySSD(3, 1).parameters()) == expected


def test_its_outputs_are_those_of_the_book_s_code(trained_norms):
    """blk_forward, flatten_pred and concat_preds of section 14.7.1, with the network's own weights."""
    net = TinySSD(3, 2).eval()
    trained_norms(net)

    def flattened(prediction):
        return prediction.permute(0, 2, 3, 1).flatten(start_dim=1)

    x = torch.randn(2, 3, 128, 192)
    classes, boxes = [], []
    convs = [layer for layer in net.stages.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in net.stages.modules() if isinstance(layer, nn.BatchNorm2d)]
    images = x
    for number in range(6):
        for conv, norm in list(zip(convs, norms, strict=True))[2 * number : 2 * number + 2]:
            x = F.conv2d(x, conv.weight, padding=1)
            x = F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias))
        x = F.max_pool2d(x, 2)
        if number >= 2:
            for found, heads in ((classes, net.heads.class_heads), (boxes, net.heads.box_heads)):
                found.append(flattened(F.conv2d(x, heads[number - 2].weight, heads[number - 2].bias, padding=1)))
    assert x.std() > 0.1, "else the pooling would not be seen"
    x = F.adaptive_max_pool2d(x, (1, 1))
    for found, heads in ((classes, net.heads.class_heads), (boxes, net.heads.box_heads)):
        found.append(flattened(F.conv2d(x, heads[4].weight, heads[4].bias, padding=1)))
    logits, offsets, map_sizes = net(images)
    assert map_sizes == ((16, 24), (8, 12), (4, 6), (2, 3), (1, 1))
    torch.testing.assert_close(logits, torch.cat(classes, dim=1).view(2, -1, 3), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(offsets, torch.cat(boxes, dim=1).view(2, -1, 4), rtol=1e-4, atol=1e-5)


def test_an_anchor_s_logits_depend_on_the_pixels_around_its_centre():
    net = TinySSD(1, 1).eval()
    image = torch.randn(1, 1, 256, 192, requires_grad=True)
    logits, _, map_sizes = net(image)
    anchors = net.anchors.boxes(map_sizes, (256, 192), torch.device("cpu"))
    assert map_sizes[0] == (32, 24)
    for place in ((5, 17), (20, 6)):  # row and column
        index = (place[0] * 24 + place[1]) * 4
        gradient = torch.autograd.grad(logits[0, index, 1], image, retain_graph=True)[0][0, 0].abs()
        rows, columns = gradient.sum(1).nonzero()[:, 0], gradient.sum(0).nonzero()[:, 0]
        x, y = ((anchors[index, :2] + anchors[index, 2:]) / 2).tolist()
        assert (x, y) == (8 * place[1] + 4, 8 * place[0] + 4)
        assert y - 32 < rows.min() < y - 4 < y + 4 < rows.max() < y + 32
        assert x - 32 < columns.min() < x - 4 < x + 4 < columns.max() < x + 32


@pytest.mark.parametrize(("size", "fits"), [((64, 64), True), ((63, 64), False), ((200, 40), False), ((64, 127), True)])
def test_the_smallest_image(size, fits):
    net, images = TinySSD(3, 4).eval(), torch.randn(1, 3, *size)
    if fits:
        assert net(images).map_sizes[-2:] == ((1, 1), (1, 1))
        return
    found = f"{size[0]} x {size[1]} pixels: expected 64 or more in each direction"
    with pytest.raises(ValueError, match=f"TinySSD cannot take {found}"):
        net(images)


@pytest.mark.parametrize(("base_channels", "smallest"), [((4,), 16), ((4, 4), 32), ((4, 4, 4, 4), 128)])
def test_other_numbers_of_blocks(base_channels, smallest):
    net = TinySSD(3, 4, base_channels=base_channels, channels=8).eval()
    maps = net(torch.randn(1, 3, smallest, smallest)).map_sizes
    assert maps == ((8, 8), (4, 4), (2, 2), (1, 1), (1, 1))
    with pytest.raises(ValueError, match=f"expected {smallest} or more"):
        net(torch.randn(1, 3, smallest, smallest - 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_channels": ()}, r"base_channels is \(\), expected one or more numbers of at least 1"),
        ({"base_channels": (8, 0)}, r"base_channels is \(8, 0\), expected one or more numbers of at least 1"),
        ({"sizes": 4 * [[0.5]]}, "sizes is for 4 feature maps, expected sizes for 5, the finest first"),
        ({"sizes": 6 * [[0.5]]}, "sizes is for 6 feature maps, expected sizes for 5, the finest first"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TinySSD(3, 2, **options)


def test_the_book_leaves_the_background_to_chance():
    chance, given = (TinySSD(3, 1, background=background) for background in (None, 0.99))
    images = torch.randn(4, 3, 64, 64)
    assert given(images).logits.softmax(2)[..., 0].mean() > 0.98
    assert 0.3 < chance(images).logits.softmax(2)[..., 0].mean() < 0.7
