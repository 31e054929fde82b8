"""What holds for the networks of all families that learn from images and classes, and for all packages of plugins."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

from leyden import plugins

FAMILIES = ("classification", "detection", "segmentation")
NETWORKS = [
    plugin
    for plugin in plugins.installed("networks")
    if plugin.class_path.startswith(tuple(f"leyden_plugins.{family}." for family in FAMILIES))
]


@pytest.fixture(params=NETWORKS, ids=lambda plugin: plugin.name)
def network(request):
    return request.param.load()


def test_channels_and_classes_come_first_and_all_else_has_a_default(network):
    parameters = list(inspect.signature(network).parameters.values())
    assert [p.name for p in parameters[:2]] == ["in_channels", "num_classes"]
    assert all(p.default is p.empty for p in parameters[:2])
    assert all(p.default is not p.empty for p in parameters[2:])


def test_docstring_describes_the_network_in_one_line_and_all_its_options(network):
    doc = inspect.getdoc(network)
    first, blank, *_ = doc.splitlines()
    assert first.endswith(".")
    assert blank == ""
    assert len(first) <= 110
    for section in ("Args:", "Shape:", "Raises:", "Source:"):
        assert section in doc
    for parameter in inspect.signature(network).parameters:
        assert f"    {parameter}: " in doc


def test_packages_import_nothing():
    root = Path(importlib.import_module("leyden_plugins").__file__).parent
    packages = sorted(root.rglob("__init__.py"))
    assert {root / family / "networks" / "__init__.py" for family in FAMILIES} <= set(packages)
    for init in packages:
        (docstring,) = ast.parse(init.read_text()).body
        assert isinstance(docstring, ast.Expr)
