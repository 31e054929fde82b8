"""The conformance kit: what a network, a data module and a task must keep to, checked in a plugin's own tests.

    def test_my_network(): check_network(MyNetwork)
    def test_my_data(tmp_path): check_data(MyData, tmp_path)
    def test_my_task(tmp_path): check_task(MyTask, MyData, tmp_path, ["--model.net", "MyNetwork"])

or, with a test for each rule and no file at all, `pytest --leyden MyTask` (leyden.testing.pytest_plugin).

Each broken rule raises AssertionError: what the platform could not do with the plugin, and why that matters. The data
is what the data module's `fabricate` writes. `predict` is given pictures of its test split; a data module without
pictures offers a class method `fabricate_inputs(folder: Path) -> list[str]`: five inputs, as a user would type them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leyden.testing.data import check_data
    from leyden.testing.networks import check_network, check_trainable
    from leyden.testing.rules import check_documented
    from leyden.testing.survival import check_killed
    from leyden.testing.tasks import check_compiled, check_processes, check_task

__all__ = [
    "check_compiled",
    "check_data",
    "check_documented",
    "check_killed",
    "check_network",
    "check_processes",
    "check_task",
    "check_trainable",
]
_MODULES = {
    "check_data": "data",
    "check_documented": "rules",
    "check_killed": "survival",
    "check_network": "networks",
    "check_trainable": "networks",
}


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: every run of pytest loads this package, and torch takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'tasks')}"), name)
