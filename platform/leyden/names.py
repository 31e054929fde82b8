"""Short names in command lines and configs become class paths before anything is parsed."""

import importlib
import re
from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from leyden import plugin_files, plugins
from leyden.errors import UsageError, unknown

_SHORT_NAME = re.compile(r"^([\w.-]+/)?[A-Za-z_]\w*$")
_LITERALS = {"true", "false", "null", "none", "yes", "no"}

# slots that hold classes of libraries: the last part of the option's name, what it is called, the base of the classes,
# where they live
_LIBRARIES = {
    "optimizer": ("optimizer", "torch.optim.Optimizer", ("torch.optim",)),
    "lr_scheduler": (
        "schedule",
        "torch.optim.lr_scheduler.LRScheduler",
        ("torch.optim.lr_scheduler", "leyden.schedules"),
    ),
    "callbacks": (
        "callback",
        "lightning.pytorch.callbacks.Callback",
        ("lightning.pytorch.callbacks", "leyden.callbacks"),
    ),
    "logger": (
        "logger",
        "lightning.pytorch.loggers.Logger",
        ("lightning.pytorch.loggers", "leyden.loggers"),
    ),
}
_PLUGINS = {"model": "tasks", "data": "data", "net": "networks"}
_CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


class ConfigLoader(yaml.SafeLoader):
    """YAML 1.2's floats, as the parser reads them later: 1e-3 is a number."""


ConfigLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def class_path(option: str, name: Any) -> Any:
    """The class path for a value of an option; anything but a short name, or an option without classes, stays as it is.

    Raises UsageError with the nearest known name for a short name that nobody offers.
    """
    slot = _slot(option)
    if not isinstance(name, str) or name.lower() in _LITERALS:
        return name
    if (slot in _PLUGINS or slot in _LIBRARIES) and name.endswith(".py"):
        named = f"{plugin_files.OPTION} {name}"
        raise UsageError(f"{option} takes the name of a class, not a file: {named} offers the file's classes by name.")
    if (slot in _PLUGINS or slot in _LIBRARIES) and "." in name and "/" not in name:
        cls = plugins.import_class(name)  # for its error message
        if slot == "model":
            _require_no_network(name, cls)
        return name
    if not _SHORT_NAME.match(name):
        return name
    if slot in _PLUGINS:
        plugin = plugins.find(_PLUGINS[slot], name)
        plugin.load()  # for its error message
        return plugin.class_path
    if slot in _LIBRARIES:
        return _library_class(*_LIBRARIES[slot], name)
    return name


def _require_no_network(name: str, cls: Any) -> None:
    """A network alone says neither what is learnt nor how."""
    module, lightning = (
        plugins.import_class(path) for path in ("torch.nn.Module", "lightning.pytorch.LightningModule")
    )
    if isinstance(cls, type) and issubclass(cls, module) and not issubclass(cls, lightning):
        raise UsageError(
            f"model is {name!r}, which is a network (nn.Module); it must be the name of a LightningModule, which says "
            f"what is learnt. A network is an option of a task: --model TASK --model.net {name}"
        )


def _library_class(kind: str, base_path: str, modules: tuple[str, ...], name: str) -> str:
    known: dict[str, str] = {}
    base = plugins.import_class(base_path)
    for module in modules:
        for key, value in vars(importlib.import_module(module)).items():
            if isinstance(value, type) and issubclass(value, base) and value is not base and not key.startswith("_"):
                known[key] = f"{module}.{key}"
    if name not in known:
        raise unknown(kind, name, known)
    return known[name]


def resolve_arguments(arguments: list[str]) -> list[str]:
    """Resolve short names in `--option NAME` and `--option=NAME`, and in every `--config FILE`.

    Plugin files that a config names are in use from then on.
    """
    read = {file: _read(file) for file in configs(arguments)}
    for file, config in read.items():
        _use_plugin_files(config.get(plugin_files.CONFIG_KEY), file)
    resolved: list[str] = []
    words = deque(arguments)
    while words:
        word = words.popleft()
        if not word.startswith("--") and word != "-c":
            resolved.append(word)
            continue
        option, equals, value = word.partition("=")
        name = "config" if option == "-c" else option[2:]
        has_value = bool(words) and not words[0].startswith("--")
        if not equals and name.endswith(".help") and not has_value:
            resolved += [option, *_asked_about(resolved, option)]
            continue
        if not equals and _needs_value(name) and not has_value:
            raise UsageError(f"{option} needs a value.")
        if not equals and _takes_class(name) and has_value:
            resolved += [option, _resolve_value(name, words.popleft(), read)]
        elif equals:
            resolved.append(f"{option}={_resolve_value(name, value, read)}")
        else:
            resolved.append(word)
    return resolved


def require_known(arguments: list[str]) -> list[dict[str, Any]]:
    """The configs that a command line names, in order. For a command line that is to run elsewhere: imports no plugin.

    Raises UsageError for a config that cannot be read, and for a task, network or data module that nobody offers.
    """
    read = {file: _read(file) for file in configs(arguments)}
    for file, config in read.items():
        _use_plugin_files(config.get(plugin_files.CONFIG_KEY), file)
        try:
            for key, value in config.items():
                _require_known_node(str(key), value)
        except UsageError as error:
            raise UsageError(f"in {file}: {error}") from error
    for word, following in pairwise([*arguments, "--"]):
        option, equals, value = word.partition("=")
        if option.startswith("--") and (equals or not following.startswith("--")):
            _require_known_node(option[2:], value if equals else following)
    return list(read.values())


def _require_known_node(option: str, node: Any) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _require_known_node(_below(option, str(key)), value)
        return
    is_name = isinstance(node, str) and _SHORT_NAME.match(node) and node.lower() not in _LITERALS
    if is_name and _slot(option) in _PLUGINS:
        plugins.find(_PLUGINS[_slot(option)], node)


def _asked_about(words: list[str], option: str) -> list[str]:
    """The class that `--x.help` asks about: the one that an earlier `--x` named; nothing for `--model.help` alone."""
    asked = option.removesuffix(".help")
    classes = [value for word, value in pairwise(words) if word in (asked, f"{asked}.class_path")]
    classes += [word.partition("=")[2] for word in words if word.startswith((f"{asked}=", f"{asked}.class_path="))]
    if not classes and "." not in asked:
        return []
    if not classes:
        raise UsageError(f"{option} needs a name: {option} NAME, or {asked} NAME before it.")
    return classes[-1:]


def _slot(option: str) -> str:
    """What kind of class an option takes; "" for none. `model` and `data` mean the options of just that name."""
    parent, _, slot = option.removesuffix("+").removesuffix(".class_path").removesuffix(".help").rpartition(".")
    return "" if parent and slot in ("model", "data") else slot


def _needs_value(option: str) -> bool:
    """Every option of a task, data module or trainer does; what the others do, the parser knows."""
    return not option.endswith(".help") and (_takes_class(option) or "." in option)


def _takes_class(option: str) -> bool:
    return _slot(option) in _PLUGINS or _slot(option) in _LIBRARIES or option == "config"


def _resolve_value(option: str, value: str, configs_read: dict[str, dict[str, Any]]) -> str:
    if option == "config":
        return yaml.safe_dump(_resolve_config(value, configs_read[value]), sort_keys=False)
    if value.lstrip().startswith(("{", "[")):
        return yaml.safe_dump(_resolve_node(option, load_yaml(value, option)), default_flow_style=True)
    return str(class_path(option, value))


def configs(arguments: list[str]) -> list[str]:
    """The files that `--config FILE`, `-c FILE` and `--config=FILE` name, in order."""
    found = []
    for word, following in pairwise([*arguments, "--"]):
        if word in ("-c", "--config") and not following.startswith("--"):
            found.append(following)
        elif word.startswith("--config="):
            found.append(word.partition("=")[2])
    return found


def _use_plugin_files(named: Any, config: str) -> None:
    if named is None:
        return
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise UsageError(f"in {config}: {plugin_files.CONFIG_KEY} is {named!r}; it must be a list of Python files.")
    if gone := plugin_files.recall(named):
        raise UsageError(
            f"in {config}: {plugin_files.CONFIG_KEY} names {gone[0]}, which is not there. Where it is now is named by "
            f"{plugin_files.OPTION} FILE."
        )


def _resolve_config(file: str, config: dict[str, Any]) -> dict[str, Any]:
    try:
        return {key: _resolve_node(str(key), value) for key, value in config.items()}
    except UsageError as error:
        raise UsageError(f"in {file}: {error}") from error


def _read(file: str) -> dict[str, Any]:
    """A YAML config. Raises UsageError for a file that is missing or is no mapping."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"the config {file!r} cannot be read: {reason}.") from error
    config = load_yaml(text, file)
    if not isinstance(config, dict):
        raise UsageError(f"the config {file!r} is not a mapping of options but {type(config).__name__}.")
    return config


def load_yaml(text: str, where: str) -> Any:
    """Parse YAML. Raises UsageError that names line and column."""
    try:
        return yaml.load(text, Loader=ConfigLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{where} is not valid YAML{place}: {error.problem}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def _resolve_node(option: str, node: Any) -> Any:
    """`option` is the dotted name of this place in the config."""
    if isinstance(node, list):
        return [_resolve_node(option, item) for item in node]
    if not isinstance(node, dict):
        return class_path(option, node)
    if "class_path" in node and (stray := [str(key) for key in node if key not in _CLASS_KEYS]):
        raise UsageError(f"{option} has {', '.join(stray)} beside class_path; a class's options stand under init_args.")
    if "class_path" in node and not isinstance(node.get("init_args") or {}, dict):
        raise UsageError(f"init_args of {option} is not a mapping of options but {type(node['init_args']).__name__}.")
    return {key: _resolve_node(_below(option, str(key)), value) for key, value in node.items()}


def _below(option: str, key: str) -> str:
    return option if key in ("class_path", "init_args") else f"{option}.{key}"
