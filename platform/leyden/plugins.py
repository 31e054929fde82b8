"""Finds the tasks, networks and data modules that installed packages offer, without importing them.

A package offers a class by an entry point in one of three groups (`leyden.tasks`, `leyden.networks`, `leyden.data`).
Everything here but `Plugin.load` works from metadata and source text, so that one broken or slow plugin can neither
stop nor delay anything that does not ask for it.
"""

import ast
import importlib
import importlib.util
import inspect
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from leyden.errors import LeydenError, UsageError, guess, unknown

GROUPS = {"tasks": "leyden.tasks", "networks": "leyden.networks", "data": "leyden.data"}
SINGULAR = {"tasks": "task", "networks": "network", "data": "data"}
_TARGET = re.compile(r"^[\w.]+:\w+$")


class PluginError(LeydenError):
    """A plugin was asked for and cannot be loaded."""

    exit_status = 2


@dataclass(frozen=True)
class Plugin:
    """One entry point: `name` is what the user types, `target` is `module:Class`."""

    kind: str
    name: str
    target: str
    package: str
    version: str

    @property
    def class_path(self) -> str:
        """The importable path `module.Class`."""
        return self.target.replace(":", ".")

    @property
    def qualified_name(self) -> str:
        """`package/Name`, which stays unambiguous when two packages offer one name."""
        return f"{self.package}/{self.name}"

    def load(self) -> type:
        """Import the class. Raises PluginError with the cause when that fails."""
        where = f"{SINGULAR[self.kind]} {self.name!r} of package {self.package} {self.version} ({self.target})"
        if not _TARGET.match(self.target):
            raise PluginError(f"{where} is not of the form module:Class.")
        module, _, attribute = self.target.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
            raise PluginError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
        if not isinstance(loaded, type):
            raise PluginError(f"{where} is not a class but {loaded!r}.")
        return loaded

    def description(self) -> str:
        """First line of the class's docstring, read from the source; "" where there is no source to read."""
        node = _class_node(self.target)
        return (ast.get_docstring(node) or "").partition("\n")[0] if node else ""


def installed(kind: str) -> list[Plugin]:
    """All plugins of a kind (`tasks`, `networks`, `data`), sorted by name, then by package."""
    return _installed()[kind]


@cache
def _installed() -> dict[str, list[Plugin]]:
    found: dict[str, list[Plugin]] = {}
    for kind, group in GROUPS.items():
        plugins = {_plugin(kind, point) for point in entry_points(group=group)}
        found[kind] = sorted(plugins, key=lambda plugin: (plugin.name.lower(), plugin.package))
    return found


def _plugin(kind: str, point: EntryPoint) -> Plugin:
    package, version = ("?", "?") if point.dist is None else (point.dist.name, point.dist.version)
    return Plugin(kind, point.name, point.value.replace(" ", ""), package, version)


def find(kind: str, name: str) -> Plugin:
    """The plugin that a short name or `package/Name` stands for.

    Raises UsageError when nothing has that name, or when several packages have it and the name alone was given.
    """
    plugins = installed(kind)
    matches = [plugin for plugin in plugins if name in (plugin.name, plugin.qualified_name)]
    if not matches:
        raise unknown(SINGULAR[kind], name, [plugin.name for plugin in plugins])
    if len(matches) > 1:
        choices = " or ".join(plugin.qualified_name for plugin in matches)
        raise UsageError(f"{len(matches)} packages offer the {SINGULAR[kind]} {name!r}. Write {choices}.")
    return matches[0]


def broken(kind: str) -> dict[Plugin, str]:
    """Plugins of a kind that cannot be imported, with the cause. Imports every one of them."""
    causes: dict[Plugin, str] = {}
    for plugin in installed(kind):
        try:
            plugin.load()
        except PluginError as error:
            causes[plugin] = str(error)
    return causes


def import_class(class_path: str) -> Any:
    """Import `module.Class`. Raises UsageError that says which part does not exist, or what the import raised."""
    module, _, attribute = class_path.rpartition(".")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f"{class_path!r}: there is no module {error.name!r}.") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{class_path!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(loaded, attribute):
        own = [name for name, value in vars(loaded).items() if str(getattr(value, "__module__", "")).startswith(module)]
        raise UsageError(f"module {module} has no {attribute!r}.{guess(attribute, own)}")
    return getattr(loaded, attribute)


def path_of(cls: type) -> str:
    """The importable path of a class, `module.Class`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def arguments(cls: type) -> list[tuple[type, inspect.Parameter]]:
    """The arguments of a class, each with the class that declares it: its own, and those that **kwargs pass on."""
    found: list[tuple[type, inspect.Parameter]] = []
    for owner in cls.__mro__:
        if "__init__" not in vars(owner):
            continue
        parameters = list(inspect.signature(owner).parameters.values())
        found += [(owner, each) for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return found


@cache
def _class_node(target: str) -> ast.ClassDef | None:
    module, _, name = target.partition(":")
    source = _source(module)
    if source is None:
        return None
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def _source(module: str) -> Path | None:
    """The file of a module. Only the top package is looked up, since `find_spec` imports the parents of others."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or []:
        path = Path(folder, *rest)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
