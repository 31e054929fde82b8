import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leyden_plugins.segmentation.networks.unet import UNet


def test_parameter_count_of_the_paper_s_network():
    """With a bias for each convolution in place of batch norm's two numbers it is that of figure 1."""

    def conv(inputs, outputs, size):
        return (inputs * size**2 + 1) * outputs

    levels = (64, 128, 256, 512, 1024)
    contracting = sum(conv(i, o, 3) + conv(o, o, 3) for i, o in itertools.pairwise((1, *levels)))
    expanding = sum(
        conv(wide, narrow, 2) + conv(wide, narrow, 3) + conv(narrow, narrow, 3)
        for narrow, wide in itertools.pairwise(levels)
    )
    papers = contracting + expanding + conv(64, 2, 1)
    assert papers == 31_030_658
    net = UNet(1, 2)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 18  # figure 1 has 23 convolutional layers: these, four that enlarge, and the last
    biases = sum(layer.num_features for layer in norms)
    assert sum(p.numel() for p in net.parameters()) == papers + biases


@pytest.mark.parametrize("size", [(8, 12), (5, 7), (1, 1)])
def test_logits_are_those_of_figure_1(size):
    net = UNet(3, 2, channels=(4, 6, 8)).eval()
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    images = torch.randn(2, 3, *size)

    def convs(x, block):
        for conv, norm in ((block[0], block[1]), (block[3], block[4])):
            x = F.conv2d(x, conv.weight, padding=1)
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
        return x

    def enlarged(x, layer):
        return F.conv_transpose2d(x, layer.weight, layer.bias, stride=2)

    height, width = (-(-pixels // 4) * 4 for pixels in size)
    x = torch.zeros(2, 3, height, width)
    x[..., : size[0], : size[1]] = images
    one = convs(x, net.down[0])
    two = convs(F.max_pool2d(one, 2), net.down[1])
    x = convs(F.max_pool2d(two, 2), net.bottom[0])
    x = convs(torch.cat((two, enlarged(x, net.up[0].enlarge)), 1), net.up[0].convs)
    x = convs(torch.cat((one, enlarged(x, net.up[1].enlarge)), 1), net.up[1].convs)
    expected = F.conv2d(x, net.score.weight, net.score.bias)
    torch.testing.assert_close(net(images), expected[..., : size[0], : size[1]])


def test_weights_begin_with_the_paper_s_variance():
    net = UNet(3, 2, channels=(32, 64))
    conv, enlarge = net.bottom[0][3], net.up[0].enlarge
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    assert enlarge.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.03)
    assert conv.weight.abs().max() > 3.5 * conv.weight.std()  # a Gaussian has tails
    assert not enlarge.bias.any()
    assert not net.score.bias.any()


def test_dropout_is_at_the_end_of_the_contracting_path():
    net = UNet(1, 2, channels=(4, 8), dropout=1.0)
    one, other = torch.randn(2, 1, 8, 8)
    kept = []
    net.up[0].enlarge.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    net(torch.stack((one, other)))
    assert not kept[0].any()
    net.eval()(torch.stack((one, other)))
    assert kept[1].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": ()}, r"channels is \(\), expected one or more numbers"),
        ({"channels": (8, 0)}, r"channels is \(8, 0\), expected one or more numbers of at least 1"),
        ({"dropout": -0.5}, "dropout is -0.5, expected a probability"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(3, 2, **options)


def test_one_level_is_two_convolutions_and_the_scores():
    net = UNet(3, 2, channels=(4,))
    assert net(torch.randn(1, 3, 3, 5)).shape == (1, 2, 3, 5)
    assert sum(isinstance(layer, nn.Conv2d) for layer in net.modules()) == 3
