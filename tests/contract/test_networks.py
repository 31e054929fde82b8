"""Every network that is installed keeps the rules of leyden.testing."""

import math

import pytest
import torch
import torch.nn.functional as F

from leyden import plugins
from leyden.testing import check_documented, check_network, check_trainable

# what makes a large network small, or learning fast enough to see
OPTIONS = {
    "AlexNet": {"hidden_size": 64},
    "DenseNet": {"growth_rate": 8},
    "VGG": {"width_factor": 0.125, "hidden_size": 64},
}


def check_row_network(network, **options):
    """net(in_features, 1) learns a linear function of rows by heart."""
    check_documented(network)
    features = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    targets = features @ torch.tensor([[0.1], [-0.15], [0.05]])  # what small steps can reach
    below = 0.1 * targets.var(correction=0).item()  # the best constant answer has all of it
    check_trainable(lambda: network(3, 1, **options), [features], lambda out: F.mse_loss(out, targets), below)


def check_sequence_network(network, **options):
    """net(vocab_size) learns by heart which token follows which; each row gets the logits that it gets alone."""
    check_documented(network)
    tokens = torch.randint(0, 12, (4, 9), generator=torch.Generator().manual_seed(0))
    below = 0.7 * math.log(12)  # the best answer that looks at nothing has more

    def loss(found):
        return F.cross_entropy(found[0].flatten(0, 1), tokens[:, 1:].flatten())

    check_trainable(lambda: network(12, **options), [tokens[:, :-1]], loss, below)
    net = network(12, **options).eval()
    torch.testing.assert_close(net(tokens[:1])[0], net(tokens)[0][:1])


# by the family that a network is made for
CHECKS = {
    "classification": check_network,
    "language_model": check_sequence_network,
    "regression": check_row_network,
}


@pytest.mark.parametrize("plugin", plugins.installed("networks"), ids=lambda plugin: plugin.qualified_name)
def test_network(plugin):
    assert plugin.description()
    family = plugin.class_path.split(".")[1]
    CHECKS[family](plugin.load(), **OPTIONS.get(plugin.name, {}))
