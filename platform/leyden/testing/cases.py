"""A plugin by its name, and the rules that it must keep: what `pytest --leyden` collects its tests from."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn

from leyden import plugin_files, plugins
from leyden.data import DataModule
from leyden.errors import UsageError, unknown
from leyden.names import load_yaml
from leyden.plugins import GROUPS, Plugin, path_of
from leyden.task import Task
from leyden.testing import data, networks, tasks
from leyden.testing.commands import Bench
from leyden.testing.rules import check_documented

Check = Callable[[Any], None]
IMAGE_NETWORK = ["in_channels", "num_classes"]  # the first arguments of a network that classifies images


class NotTried(Exception):  # noqa: N818  # nothing is wrong
    """A rule that cannot be tried on the plugin alone; the message says how it can."""


@dataclass
class Case:
    """A plugin, its rules by name, and how to make what they are tried on in a folder."""

    name: str
    checks: dict[str, Check]
    make: Callable[[Path], Any]
    words: Sequence[str]  # as they were given: they may name plugin files
    subjects: dict[Path, Any] = field(default_factory=dict)

    def check(self, rule: str, folder: Path) -> None:
        """Try one rule; all rules of a plugin share a folder. Raises BrokenRule, or NotTried."""
        with plugin_files.in_use(self.words):
            _look_here_too()
            if folder not in self.subjects:
                self.subjects[folder] = self.make(folder)
            self.checks[rule](self.subjects[folder])


def find(words: Sequence[str]) -> Case:
    """The case of `NAME [OPTION ...]`: a registered name, `package/Name` or class path, and options.

    Those of a task are options of `fit`; without `--data` and `--model.net` it gets what its own package offers, where
    that is one. Those of a network are its arguments. Raises UsageError for a name that does not exist, or that has no
    rules to keep.
    """
    with plugin_files.in_use(words) as rest:
        _look_here_too()
        if not rest or rest[0].startswith("-"):
            raise UsageError(f"{' '.join(words)!r} does not begin with the name of a task, network or data module.")
        name, *options = rest
        cls = _class(name)
        if issubclass(cls, Task):
            return _task_case(name, cls, options, words)
        if issubclass(cls, DataModule):
            if options:
                raise UsageError(f"{name} is a data module and takes no options here, not {options[0]!r}.")
            return Case(name, {**data.RULES}, lambda folder: data.Fabricated(cls, folder), words)
        if issubclass(cls, LightningModule | LightningDataModule):
            raise UsageError(f"{name} is no leyden Task and no leyden DataModule: it has no rules to keep.")
        subject = networks.ImageNetwork(cls, _arguments(options))
        return Case(name, _network_checks(cls), lambda _: subject, words)


def _look_here_too() -> None:
    """As the commands do, which take a class from a file of the current folder."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _class(name: str) -> Any:
    if "." in name and "/" not in name:
        found = plugins.import_class(name)
    else:
        offered = [plugin for kind in GROUPS for plugin in plugins.installed(kind)]
        kinds = {plugin.kind for plugin in offered if name in (plugin.name, plugin.qualified_name)}
        if not kinds:
            raise unknown("plugin", name, [plugin.name for plugin in offered])
        if len(kinds) > 1:
            raise UsageError(f"{name!r} stands in {' and '.join(sorted(kinds))}. Write the class path instead.")
        found = plugins.find(kinds.pop(), name).load()
    if not isinstance(found, type) or not issubclass(found, nn.Module | LightningDataModule):
        raise UsageError(f"{name} is no task, no network and no data module.")
    return found


def _task_case(name: str, task: type[Task[Any]], options: list[str], words: Sequence[str]) -> Case:
    chosen, options = _split_data(options)
    task_data = _only_data(name, task) if chosen is None else _class(chosen)
    if not issubclass(task_data, DataModule):
        raise UsageError(f"{chosen} is no leyden DataModule: the kit needs data that can be fabricated.")
    if _needs_network(task) and not any(word.startswith("--model.net") for word in options):
        siblings = _siblings(task, "networks")
        options = ["--model.net", path_of(siblings[0]), *options] if len(siblings) == 1 else options
    checks = {**tasks.RULES, **tasks.FURTHER_RULES}
    return Case(name, checks, lambda folder: Bench(task_data, folder, task, options), words)


def _split_data(options: Sequence[str]) -> tuple[str | None, list[str]]:
    """What `--data NAME` names, and the other words."""
    rest = list(options)
    for place, word in enumerate(rest):
        if word.startswith("--data="):
            return rest.pop(place).partition("=")[2], rest
        if word == "--data" and place + 1 < len(rest):
            return rest[place + 1], rest[:place] + rest[place + 2 :]
    return None, rest


def _only_data(name: str, task: type[Task[Any]]) -> Any:
    fitting = [cls for cls in _siblings(task, "data") if cls.batch_type() is task.batch_type()]
    if len(fitting) != 1:
        found = ", ".join(cls.__name__ for cls in fitting) or "none"
        raise UsageError(
            f"which data is {name} to be tried on? Its own package offers {found}. Write {name} --data NAME."
        )
    return fitting[0]


def _needs_network(task: type) -> bool:
    net = inspect.signature(task).parameters.get("net")
    return net is not None and net.default is net.empty


def _siblings(cls: type, kind: str) -> list[Any]:
    """The networks or data modules of the same package, or, of a class that no package offers, of the same module."""
    offered = [plugin for each in GROUPS for plugin in plugins.installed(each)]
    mine: Plugin | None = next((plugin for plugin in offered if plugin.class_path == path_of(cls)), None)
    if mine is not None:
        return [plugin.load() for plugin in offered if plugin.kind == kind and plugin.package == mine.package]
    base = DataModule if kind == "data" else nn.Module
    defined = [each for each in vars(sys.modules[cls.__module__]).values() if isinstance(each, type)]
    own = [each for each in defined if issubclass(each, base) and each.__module__ == cls.__module__]
    return [each for each in own if not issubclass(each, LightningModule)]


def _network_checks(cls: type) -> dict[str, Check]:
    first = list(inspect.signature(cls).parameters)[: len(IMAGE_NETWORK)]
    if first == IMAGE_NETWORK:
        return {**networks.RULES}

    def not_tried(_: Any) -> None:
        raise NotTried(
            f"{cls.__name__}({', '.join(first)}) is not {cls.__name__}({', '.join(IMAGE_NETWORK)}, ...): what it is "
            f"run on is not known. It is tried with its task (--leyden 'TASK --model.net {cls.__name__}'), or by "
            "leyden.testing.check_trainable in a test of your own."
        )

    return {"documented": lambda case: check_documented(case.network), "learns": not_tried}


def _arguments(options: Sequence[str]) -> dict[str, Any]:
    """`--width 8` and `--width=8` as arguments of a class."""
    found: dict[str, Any] = {}
    waiting = iter(options)
    for word in waiting:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            raise UsageError(f"{word!r} stands where an option was expected.")
        found[name] = load_yaml(value if equals else next(waiting, ""), word)
    return found
