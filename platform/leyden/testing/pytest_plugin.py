"""The conformance kit in pytest: `pytest --leyden MyTask` adds a test for each rule, with no file to write.

    pytest --leyden MyNetwork --leyden MyData --leyden "MyTask --data MyData --model.net MyNetwork"

or once and for all, in the plugin's pyproject.toml (left out when pytest is told which files to run):

    [tool.pytest.ini_options]
    leyden = ["MyNetwork", "MyData", "MyTask"]

or in a test of one's own, by the fixture:

    def test_my_task(leyden_check): leyden_check("MyTask", "--model.net.width", "8")

Every run of pytest in an environment with leyden loads this file: it imports nothing but pytest until it is asked.
"""

import logging
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from leyden.testing.cases import Case


def pytest_addoption(parser: pytest.Parser) -> None:
    """Pytest's hook: --leyden, and `leyden` in the configuration."""
    text = (
        "check a leyden plugin by the conformance kit; a registered name, package/Name or class path, for a task "
        "followed by options of fit, for a network by its arguments; may be repeated"
    )
    parser.getgroup("leyden").addoption(
        "--leyden", action="append", default=[], metavar="'NAME [OPTION ...]'", help=text
    )
    parser.addini("leyden", "leyden plugins to check, each written as for --leyden", type="linelist", default=[])


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Pytest's hook: add a test for each rule of each plugin."""
    chosen = config.args_source is pytest.Config.ArgsSource.ARGS
    asked = [*([] if chosen else config.getini("leyden")), *config.getoption("leyden")]
    for words in dict.fromkeys(asked):
        items.extend(PluginRules.of(session, words).collect())


class PluginRules(pytest.Collector):
    """A plugin; its tests are its rules, which share a folder."""

    case: "Case"
    _folder: Path | None = None

    @classmethod
    def of(cls, session: pytest.Session, words: str) -> "PluginRules":
        """Raises pytest.UsageError, with the platform's own message, where there is no such plugin."""
        case = _find(shlex.split(words))
        made: PluginRules = cls.from_parent(session, name=case.name, nodeid=f"leyden::{case.name}")
        made.case = case
        return made

    def collect(self) -> list[pytest.Item]:
        """A test for each rule."""
        items = [RuleItem.from_parent(self, name=rule) for rule in self.case.checks]
        for item in items:
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))  # between libraries
        return [*items]

    @property
    def folder(self) -> Path:
        """Made when the first rule is tried, and gone when pytest ends."""
        if self._folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="leyden-", ignore_cleanup_errors=True)
            self.config.add_cleanup(temporary.cleanup)
            self._folder = Path(temporary.name)
        return self._folder


class RuleItem(pytest.Item):
    """One rule, tried on one plugin."""

    parent: PluginRules

    def runtest(self) -> None:
        """Pytest's hook."""
        from leyden.testing.cases import NotTried

        logging.disable(logging.DEBUG)  # torch.compile writes thousands of lines, all shown with a failure
        try:
            self.parent.case.check(self.name, self.parent.folder)
        except NotTried as reason:
            pytest.skip(str(reason))
        finally:
            logging.disable(logging.NOTSET)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Pytest's hook: a broken rule in words; anything else with its traceback."""
        from leyden.testing.rules import BrokenRule

        if isinstance(excinfo.value, BrokenRule) and not self.config.getoption("fulltrace"):
            return _broken(self.parent.case.name, self.name, excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Pytest's hook: what a test is called where there is no file."""
        return self.path, None, f"leyden: {self.parent.name} {self.name}"


@pytest.fixture
def leyden_check(tmp_path: Path) -> Callable[..., None]:
    """A function that tries every rule on a plugin, given as for --leyden (or as its class) with its options."""

    def check(plugin: str | type, *options: str) -> None:
        from leyden.plugins import path_of
        from leyden.testing.cases import NotTried
        from leyden.testing.rules import BrokenRule

        case = _find([plugin if isinstance(plugin, str) else path_of(plugin), *options])
        broken = []
        for rule in case.checks:
            try:
                case.check(rule, tmp_path)
            except BrokenRule as error:
                broken.append(_broken(case.name, rule, error))
            except NotTried:
                continue
        if broken:
            pytest.fail("\n".join(broken), pytrace=False)

    return check


def _find(words: list[str]) -> "Case":
    from leyden.errors import LeydenError
    from leyden.testing.cases import find

    try:
        return find(words)
    except LeydenError as error:
        raise pytest.UsageError(f"--leyden {shlex.join(words)}: {error}") from error


def _broken(name: str, rule: str, error: Any) -> str:
    return f"{name} breaks the rule {rule}\n  found: {error.found}\n  why it matters: {error.why}"
