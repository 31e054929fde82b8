"""The conformance kit: what a network, a data module and a task must keep to, checked in a plugin's own tests.

    def test_my_network(): check_network(MyNetwork)
    def test_my_data(tmp_path): check_data(MyData, tmp_path)
    def test_my_task(tmp_path): check_task(MyTask, MyData, tmp_path, ["--model.net", "MyNetwork"])

Each broken rule raises AssertionError: what the platform could not do with the plugin, and why that matters. The data
is what the data module's `fabricate` writes. `predict` is given pictures of its test split; a data module without
pictures offers a class method `fabricate_inputs(folder: Path) -> list[str]`: five inputs, as a user would type them.
"""

from leyden.testing.data import check_data
from leyden.testing.networks import check_network, check_trainable
from leyden.testing.rules import check_documented
from leyden.testing.tasks import check_compiled, check_processes, check_task

__all__ = [
    "check_compiled",
    "check_data",
    "check_documented",
    "check_network",
    "check_processes",
    "check_task",
    "check_trainable",
]
