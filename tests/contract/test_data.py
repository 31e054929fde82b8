"""Every data module that is installed keeps the rules of leyden.testing."""

import pytest

from leyden import plugins
from leyden.testing import check_data


@pytest.fixture(autouse=True)
def _nothing_on_this_machine(monkeypatch, tmp_path):
    """Data sets that happen to be installed here must not stand in for those that are fabricated."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEYDEN_DATA", raising=False)
    monkeypatch.setenv("LEYDEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("leyden_datamodules.fashion_mnist.DEBIAN_FOLDER", tmp_path / "no-package")


@pytest.mark.parametrize("plugin", plugins.installed("data"), ids=lambda plugin: plugin.qualified_name)
def test_data(plugin, tmp_path):
    assert plugin.description()
    check_data(plugin.load(), tmp_path)
