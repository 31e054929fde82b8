"""Every network that is installed keeps the rules of leyden.testing."""

import pytest

from leyden import plugins
from leyden.testing import check_network

# what makes a large network small, or learning fast enough to see
OPTIONS = {
    "AlexNet": {"hidden_size": 64},
    "DenseNet": {"growth_rate": 8},
    "VGG": {"width_factor": 0.125, "hidden_size": 64},
}


@pytest.mark.parametrize("plugin", plugins.installed("networks"), ids=lambda plugin: plugin.qualified_name)
def test_network(plugin):
    assert plugin.description()
    check_network(plugin.load(), **OPTIONS.get(plugin.name, {}))
