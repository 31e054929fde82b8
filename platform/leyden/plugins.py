"""Finds the tasks, networks and data modules that are offered, without importing them.

A package offers a class by an entry point in one of three groups (`leyden.tasks`, `leyden.networks`, `leyden.data`), a
plugin file (leyden.plugin_files) by defining it. Everything here but `Plugin.load` works from metadata and source text,
so that one broken or slow plugin can neither stop nor delay anything that does not ask for it.
"""

import ast
import importlib
import inspect
import re
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, PackageNotFoundError, distributions, entry_points, requires
from typing import Any

from leyden import __version__, plugin_files, sources
from leyden.errors import LeydenError, UsageError, guess, unknown

GROUPS = {"tasks": "leyden.tasks", "networks": "leyden.networks", "data": "leyden.data"}
SINGULAR = {"tasks": "task", "networks": "network", "data": "data"}
_TARGET = re.compile(r"^[\w.]+:\w+$")


class PluginError(LeydenError):
    """A plugin was asked for that cannot be loaded, or that breaks a rule (leyden.rules)."""

    exit_status = 2


@dataclass(frozen=True)
class Plugin:
    """One class that is offered: `name` is what the user types, `target` is `module:Class`.

    `package` is the distribution, or the name of the plugin file, which has no version but a path in `file`.
    """

    kind: str
    name: str
    target: str
    package: str
    version: str
    file: str = ""

    @property
    def class_path(self) -> str:
        """The importable path `module.Class`."""
        return self.target.replace(":", ".")

    @property
    def qualified_name(self) -> str:
        """`package/Name`, which stays unambiguous when two packages offer one name."""
        return f"{self.package}/{self.name}"

    @property
    def origin(self) -> str:
        """Where it comes from: package and version, or the file."""
        return self.file or f"{self.package} {self.version}"

    def load(self) -> type:
        """Import the class. Raises PluginError with the cause when that fails."""
        place = self.file or f"package {self.package} {self.version} ({self.target})"
        where = f"{SINGULAR[self.kind]} {self.name!r} of {place}"
        if not _TARGET.match(self.target):
            raise PluginError(f"{where} is not of the form module:Class.")
        if not self.file and (asked := _unmet(self.package)):
            raise PluginError(
                f"{where} is made for {asked}; this is leyden {__version__}. Install {asked}, or a release of "
                f"{self.package} for leyden {__version__}."
            )
        module, _, attribute = self.target.partition(":")
        try:
            loaded = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:  # a plugin may raise anything while it is imported
            raise PluginError(f"{where} cannot be imported: {cause(error, module)}") from error
        if not isinstance(loaded, type):
            raise PluginError(f"{where} is not a class but {loaded!r}.")
        return loaded

    def description(self) -> str:
        """First line of the class's docstring, read from the source; "" where there is no source to read."""
        node = _class_node(self.target)
        return (ast.get_docstring(node) or "").partition("\n")[0] if node else ""


def installed(kind: str) -> list[Plugin]:
    """All plugins of a kind (`tasks`, `networks`, `data`), sorted by name, then by package."""
    from_files = [
        Plugin(kind, offer.name, offer.target, offer.file.name, "", str(offer.file))
        for offer in plugin_files.offers()
        if offer.kind == kind
    ]
    return sorted([*_installed()[kind], *from_files], key=lambda plugin: (plugin.name.lower(), plugin.package))


@cache
def _installed() -> dict[str, list[Plugin]]:
    points = _entry_points()
    return {kind: list({_plugin(kind, point) for point in points.select(group=name)}) for kind, name in GROUPS.items()}


def _entry_points() -> Any:
    """All entry points, to `select` from; where one package's cannot be read, those of all others."""
    try:
        return entry_points()
    except Exception:  # whatever a damaged file leads to
        found: dict[str, EntryPoints] = {}
        for distribution in distributions():
            with suppress(Exception):
                found.setdefault(distribution.name, distribution.entry_points)
        return EntryPoints(point for points in found.values() for point in points)


def _plugin(kind: str, point: EntryPoint) -> Plugin:
    try:
        package, version = (None, None) if point.dist is None else (point.dist.name, point.dist.version)
    except Exception:  # damaged metadata
        package, version = None, None
    return Plugin(kind, point.name, point.value.replace(" ", ""), package or "?", version or "?")


@cache
def required(package: str) -> str | None:
    """What a package requires of leyden, such as `leyden>=0.1,<1`; None where it does not say."""
    from packaging.requirements import InvalidRequirement, Requirement  # only where a plugin is used

    try:
        texts = requires(package) or []
    except (PackageNotFoundError, ValueError):
        return None
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if requirement.name.lower() == "leyden" and applies:
            return f"leyden{requirement.specifier}"
    return None


def _unmet(package: str) -> str | None:
    """What a package requires of leyden where this is not it; None where all is well."""
    from packaging.requirements import Requirement

    found = required(package)
    met = found is None or Requirement(found).specifier.contains(__version__, prereleases=True)
    return None if met else found


def cause(error: BaseException, *modules: str) -> str:
    """What was raised, and the line in which one of these modules' packages had its part in it."""
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):  # it names its place
        return message
    packages = {module.partition(".")[0] for module in modules}
    frames = traceback.walk_tb(error.__traceback__)
    own = [(frame, line) for frame, line in frames if _package(frame.f_globals) in packages]
    if not own:
        return message
    frame, line = own[-1]
    return f"{message} ({frame.f_code.co_filename}, line {line})"


def _package(names: dict[str, Any]) -> str:
    return str(names.get("__name__")).partition(".")[0]


def find(kind: str, name: str) -> Plugin:
    """The plugin that a short name or `package/Name` stands for.

    Raises UsageError when nothing has that name, or when several packages have it and the name alone was given.
    """
    plugins = installed(kind)
    matches = [plugin for plugin in plugins if name in (plugin.name, plugin.qualified_name)]
    if not matches:
        error = unknown(SINGULAR[kind], name, [plugin.name for plugin in plugins])
        others = [SINGULAR[other] for other in GROUPS if name in [plugin.name for plugin in installed(other)]]
        raise UsageError(f"{name!r} is of the kind {others[0]}. {error}") if others else error
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
        if not f"{module}.".startswith(f"{error.name}."):
            raise UsageError(f"{class_path!r} cannot be imported: {cause(error, module)}") from error
        raise UsageError(f"{class_path!r}: there is no module {error.name!r}.{_where_to_look(error.name)}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{class_path!r} cannot be imported: {cause(error, module)}") from error
    if not hasattr(loaded, attribute):
        own = [name for name, value in vars(loaded).items() if str(getattr(value, "__module__", "")).startswith(module)]
        raise UsageError(f"module {module} has no {attribute!r}.{guess(attribute, own)}")
    return getattr(loaded, attribute)


def _where_to_look(module: str | None) -> str:
    """What helps where a whole package or file is missing."""
    if module is None or "." in module:
        return ""
    return f" It is neither installed nor in this folder; {plugin_files.OPTION} FILE names a file elsewhere."


def named(cls: type) -> str:
    """A class in a message: `LeNet`, or `Net of others 2.5`, or `Net of /home/me/net.py`, where it is not leyden's."""
    path = path_of(cls)
    plugin = next((each for kind in GROUPS for each in _installed()[kind] if each.class_path == path), None)
    if plugin is not None:
        return cls.__name__ if plugin.package == "leyden" else f"{cls.__name__} of {plugin.origin}"
    module = sys.modules.get(cls.__module__)
    return f"{cls.__name__} of {getattr(module, '__file__', None) or cls.__module__}"


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
    return sources.class_node(module, name)
