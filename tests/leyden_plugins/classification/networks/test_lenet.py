import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leyden_plugins.classification.networks.lenet import LeNet


def test_layer_shapes_at_28_pixels(shapes_through):
    net = LeNet(1, 10)
    shapes = shapes_through([*net.features, *net.classifier], torch.randn(1, 1, 28, 28))
    conv = [(6, 28, 28)] * 2 + [(6, 14, 14)] + [(16, 10, 10)] * 2 + [(16, 5, 5)] * 2
    assert shapes == [*conv, (400,), (120,), (120,), (84,), (84,), (10,)]


def test_parameter_counts():
    def count(net):
        return sum(p.numel() for p in net.parameters())

    assert count(LeNet(1, 10)) == 61_706
    biases, normed = 6 + 16 + 120 + 84, 2 * (6 + 16 + 120 + 84)
    assert count(LeNet(1, 10, batch_norm=True)) == 61_706 - biases + normed


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_logits_are_those_of_the_formula(activation, pooling):
    net = LeNet(1, 10, activation=activation, pooling=pooling)
    w = list(net.parameters())
    function, pool = getattr(torch, activation), getattr(F, f"{pooling}_pool2d")
    images = torch.randn(3, 1, 28, 28)
    x = pool(function(F.conv2d(images, w[0], w[1], padding=2)), 2)
    x = pool(function(F.conv2d(x, w[2], w[3])), 2).flatten(1)
    x = function(F.linear(x, w[4], w[5]))
    x = function(F.linear(x, w[6], w[7]))
    torch.testing.assert_close(net(images), F.linear(x, w[8], w[9]))


def test_with_batch_norm_each_layer_is_normalized_before_its_activation():
    net = LeNet(1, 10, batch_norm=True)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)

    def norm(x, weight, bias):
        return F.batch_norm(x, None, None, weight, bias, training=True)

    w = list(net.parameters())
    images = torch.randn(8, 1, 28, 28)
    x = F.avg_pool2d(norm(F.conv2d(images, w[0], padding=2), w[1], w[2]).sigmoid(), 2)
    x = F.avg_pool2d(norm(F.conv2d(x, w[3]), w[4], w[5]).sigmoid(), 2).flatten(1)
    x = norm(F.linear(x, w[6]), w[7], w[8]).sigmoid()
    x = norm(F.linear(x, w[9]), w[10], w[11]).sigmoid()
    torch.testing.assert_close(net(images), F.linear(x, w[12], w[13]))


def test_other_sizes_are_pooled_to_the_grid():
    net = LeNet(1, 10)
    assert net(torch.randn(2, 1, 12, 40)).shape == (2, 10)
    features = net.features[:-1](images := torch.randn(1, 1, 48, 48))
    torch.testing.assert_close(net(images), net.classifier(F.adaptive_avg_pool2d(features, 5)))


def test_images_that_vanish_in_the_pooling_raise():
    with pytest.raises(RuntimeError, match="too small"):
        LeNet(1, 10)(torch.randn(1, 1, 11, 11))


def test_xavier_start():
    net = LeNet(1, 10)
    bound = (6 / (400 + 120)) ** 0.5
    weight = net.classifier[1].weight
    assert bound * 0.99 < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_bad_options():
    with pytest.raises(ValueError, match="pooling is 'mean', expected one of avg, max"):
        LeNet(1, 10, pooling="mean")
    with pytest.raises(ValueError, match="activation is 'elu', expected one of"):
        LeNet(1, 10, activation="elu")
