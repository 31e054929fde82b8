"""Turns what the parser says about a command line into a sentence or two for the person who typed it."""

import inspect
import re
from collections.abc import Iterable

from lightning.pytorch import Trainer

from leyden import plugins
from leyden.errors import LeydenError, UsageError, unknown

_NOT_ACCEPTED = re.compile(r"Option '([^']+)' is not accepted(?:\. Got value: Namespace\(class_path='([^']+)')?")
_GROUP = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
_UNRECOGNISED = re.compile(r"unrecognized arguments: (\S+)")
_CLASS_PATH = re.compile(r"given class_path '([^']+)'")
_REQUIRED = re.compile(r"arguments are required: (.+)|Key \"([^\"]+)\" is required")
_KEY = re.compile(r"Parser key \"([^\"]+)\"")
_LITERAL = re.compile(r"Expected a typing\.Literal\[([^\]]*)\]\. Got value: (.*?)(?:\. Got value|$)", re.MULTILINE)
_EXPECTED = re.compile(r"Expected an? <class '([^']+)'>")
_GIVEN = re.compile(r"Given value: (.*)")
_NOISE = re.compile(r"^\s*(Subtypes:|Given value|Errors:|Does not validate|- Expected a <class 'NoneType'>)")
TOP_LEVEL = ("config", "seed_everything", "experiment", "runs", "resume", "out", "model", "data", "trainer")


def explain(message: str) -> UsageError:
    """The parser's message as an error that names the option, the nearest known one, or the values that it takes."""
    if match := _GROUP.search(message):
        return unknown(f"option of {match[1]}", match[2], _option_names(Trainer))
    if match := _NOT_ACCEPTED.search(message):
        owners = _CLASS_PATH.findall(message[: match.start()])
        return _unknown_option(match[1], match[2] or (owners[-1] if owners else None))
    if match := _UNRECOGNISED.search(message):
        return _unrecognised(match[1])
    if match := _REQUIRED.search(message):
        return _missing(match[1] or match[2], _CLASS_PATH.findall(message[: match.start()]))
    keys = ".".join(_KEY.findall(message))
    if match := _LITERAL.search(message):
        return UsageError(f"{keys} is {match[2]!r}; it must be one of {match[1]}.")
    expected = [name for name in _EXPECTED.findall(message) if name != "NoneType"]
    given = _GIVEN.search(message)
    if expected and given and "class_path" not in message:
        return UsageError(f"{keys} is {given[1]!r}; it must be of type {' or '.join(dict.fromkeys(expected))}.")
    lines = [line.strip(" -") for line in message.splitlines() if line.strip() and not _NOISE.match(line)]
    return UsageError("the command line or config does not fit: " + " ".join(lines)[:600])


def _unknown_option(name: str, owner: str | None) -> UsageError:
    if owner is None:
        return unknown("option", name, TOP_LEVEL)
    cls = plugins.import_class(owner)
    known = _option_names(cls)
    if name in known:  # it exists, but the parser does not offer it
        return UsageError(f"{name} of {cls.__name__} cannot be chosen: the data sets {name}.")
    return unknown(f"option of {cls.__name__}", name, known)


def _unrecognised(word: str) -> UsageError:
    if not word.startswith("-"):
        return UsageError(f"{word!r} stands where an option was expected. Run and inputs come right after the command.")
    name = word.lstrip("-").partition("=")[0]
    group, dot, option = name.partition(".")
    if dot and group == "trainer":
        return unknown("option of trainer", option, _option_names(Trainer))
    if dot and group in ("model", "data"):
        return UsageError(f"{word} cannot be read before --{group} NAME: name the {group} first.")
    return unknown("option", name, TOP_LEVEL)


def _missing(names: str, owners: list[str]) -> UsageError:
    prefix = "model." if owners else ""
    options = ", ".join(f"--{prefix}{name.strip()}" for name in names.split(","))
    hint = ""
    if names.strip() in ("model", "data", "net"):
        kind = {"model": "tasks", "data": "data", "net": "networks"}[names.strip()]
        hint = " Known names: " + ", ".join(plugin.name for plugin in plugins.installed(kind)) + "."
    return UsageError(f"{options} is missing.{hint}")


def _option_names(cls: type) -> list[str]:
    """The names of a class's arguments, with those that it passes on to its bases through **kwargs."""
    names: list[str] = []
    for ancestor in cls.__mro__:
        if "__init__" not in vars(ancestor):
            continue
        parameters = list(inspect.signature(ancestor).parameters.values())
        names += [parameter.name for parameter in parameters if parameter.kind not in _VARIADIC]
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def require_matching_batches(task: type, data: type) -> None:
    """Refuse a task and a data module whose batch types differ. Classes not written for leyden pass."""
    reads, gives = (getattr(cls, "batch_type", lambda: None)() for cls in (task, data))
    if reads is None or gives is None or reads is gives:
        return
    fitting = ", ".join(_data_giving(reads)) or "none is installed"
    raise UsageError(
        f"{task.__name__} reads {reads.__name__}, {data.__name__} gives {gives.__name__}. "
        f"Data for {task.__name__}: {fitting}."
    )


def _data_giving(batch_type: type) -> Iterable[str]:
    for plugin in plugins.installed("data"):
        try:
            cls = plugin.load()
        except LeydenError:
            continue
        if getattr(cls, "batch_type", lambda: None)() is batch_type:
            yield plugin.name
