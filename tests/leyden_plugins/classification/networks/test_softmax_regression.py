import pytest
import torch

from leyden_plugins.classification.networks.softmax_regression import SoftmaxRegression


def test_is_one_linear_layer_on_the_pixels():
    net = SoftmaxRegression(1, 10)
    x = torch.randn(3, 1, 28, 28)
    logits = net(x)
    assert sum(p.numel() for p in net.parameters()) == 7_850
    weight, bias = net.parameters()
    torch.testing.assert_close(logits, x.reshape(3, 784) @ weight.T + bias)


def test_starts_normal_with_zero_biases():
    net = SoftmaxRegression(3, 100)
    net(torch.zeros(1, 3, 16, 16))
    weight, bias = net.parameters()
    assert weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not bias.any()
