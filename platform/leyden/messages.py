"""Turns what the parser says about a command line into a sentence or two for the person who typed it."""

import re
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from leyden import plugins
from leyden.data import DataModule
from leyden.errors import LeydenError, UsageError, guess
from leyden.rules import undeclared_batch
from leyden.task import Task

# what jsonargparse says; its messages nest, and the innermost says what is wrong
_KEY = re.compile(r"Parser key \"([^\"]+)\"")
_CLASS_PATH = re.compile(r"given class_path '([^']+)'")
_FACTORY = re.compile(r"Callable\[\[([^\[\]]*)\]")
_GROUP = re.compile(r"Group '([^']+)' does not accept option '([^']+)'")
_NOT_ACCEPTED = re.compile(r"Option '([^']+)' is not accepted(?:\. Got value: Namespace\(class_path='([^']+)')?")
_UNRECOGNISED = re.compile(r"unrecognized arguments: (\S+)")
_REQUIRED = re.compile(r"arguments are required: ([^\s.,]+(?:, [^\s.,]+)*)|Key \"([^\"]+)\" is required")
_NO_VALUE = re.compile(r"argument (?:-c/)?(--[^:/,]+).*: expected one argument")
_LITERAL = re.compile(r"Expected a typing\.Literal\[([^\]]*)\]")
_TYPE = re.compile(r"Expected an? <class '([^']+)'>")
_GIVEN = re.compile(r"(?:Given|Got) value: (.*?)(?:\. Got value: .*)?$", re.MULTILINE)
_BASE_CLASS = re.compile(r"(?:subclass of|function that returns) (?:<class ')?([\w.]+)")
_NOT_A_NAME = re.compile(r"Expected a dot import path string: (.*)")
_NAMESPACE = re.compile(r"Namespace\(class_path='([^']+)'")

_TYPE_NAMES = {
    "bool": "true or false",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "collections.abc.Sequence": "a list",
    "list": "a list",
}
# what the parser takes for a class that is not named yet
_STAND_INS = (LightningModule, LightningDataModule, Optimizer, LRScheduler)
_TOP_LEVEL = ("config", "seed_everything", "model", "data", "trainer", "plugins")
_FIT_ONLY = ("experiment", "runs", "resume", "monitor")
_LONGEST_LIST = 400  # characters of option names in one message


def explain(message: str, command: str = "fit") -> UsageError:
    """The parser's message as an error that names the option, the nearest known one, or the values that it takes."""
    if match := _GROUP.search(message):
        return _no_such_option(Trainer, match[2], _option_names(Trainer))
    if match := _NOT_ACCEPTED.search(message):
        return _not_accepted(match[1], match[2], message[: match.start()], command)
    if match := _UNRECOGNISED.search(message):
        return _unrecognised(match[1], message[: match.start()], command)
    if match := _REQUIRED.search(message):
        return _missing(match[1] or match[2], _place(message[: match.start()]))
    if match := _NO_VALUE.search(message):
        return UsageError(f"{match[1]} needs a value.")
    return _wrong_value(message)


def _place(message: str) -> str:
    """The dotted name of the option that a message is about. Lists make the parser name a part twice."""
    parts: list[str] = []
    for part in _KEY.findall(message):
        if part not in parts[-1:]:
            parts.append(part)
    return ".".join(parts)


def _wrong_value(message: str) -> UsageError:
    keys = list(_KEY.finditer(message))
    innermost = message[keys[-1].end() :] if keys else message
    given = _NOT_A_NAME.search(innermost) or _GIVEN.search(innermost)
    if given is not None:
        given = _NAMESPACE.match(given[1]) or given
    found = f"{_place(message)} is {given[1]!r}" if given else f"{_place(message)} has a wrong value"
    values = [value.strip("' ") for values in _LITERAL.findall(innermost) for value in values.split(",")]
    types = [_TYPE_NAMES.get(name, name) for name in _TYPE.findall(innermost) if name != "NoneType"]
    if values or types:
        choices = [f"one of {', '.join(dict.fromkeys(values))}"] if values else []
        return UsageError(f"{found}; it must be {' or '.join(dict.fromkeys([*choices, *types]))}.")
    if match := _BASE_CLASS.search(innermost):
        return UsageError(f"{found}; it must be the name of a {match[1]}, or its class_path with init_args.")
    if _NOT_A_NAME.search(innermost):
        return UsageError(f"{found}; it must be the name of a class.")
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    return UsageError("the command line or config does not fit: " + " ".join(lines)[:400])


def _not_accepted(name: str, owner: str | None, before: str, command: str) -> UsageError:
    """`owner` is the class path that the message gives behind the option, `before` the message in front of it."""
    owners = _CLASS_PATH.findall(before)
    if owner is None and not owners:
        return _no_such_option(None, name, _top_level(command))
    cls = plugins.import_class(owner or owners[-1])
    if cls in _STAND_INS:
        return _name_first(_place(before), name)
    known = _option_names(cls)
    factories = _FACTORY.findall(before)
    given_by_engine = known[: len(factories[-1].split(","))] if factories and owner else []
    if name in given_by_engine:
        giver = "data" if _place(before).endswith("net") else "task"
        return UsageError(f"{name} of {cls.__name__} cannot be chosen: the {giver} sets {name}.")
    return _no_such_option(cls, name, [option for option in known if option not in given_by_engine])


def _unrecognised(word: str, before: str, command: str) -> UsageError:
    if not word.startswith("-"):
        return UsageError(f"{word!r} stands where an option was expected. Run and inputs come right after the command.")
    name = word.lstrip("-").partition("=")[0]
    if owners := _CLASS_PATH.findall(before):
        cls = plugins.import_class(owners[-1])
        if cls in _STAND_INS:
            return _name_first(_place(before), name)
        return _no_such_option(cls, name.partition(".")[0], _option_names(cls))
    group, dot, option = name.partition(".")
    if dot and group == "trainer":
        return _no_such_option(Trainer, option, _option_names(Trainer))
    if dot and group in ("model", "data"):
        return _name_first(group, option)
    return _no_such_option(None, name, _top_level(command))


def _name_first(group: str, option: str) -> UsageError:
    return UsageError(f"--{group}.{option} cannot be read before --{group} NAME: name the {group} first.{_hint(group)}")


def _no_such_option(owner: type | None, name: str, known: Iterable[str]) -> UsageError:
    choices = sorted(set(known))
    subject = "there is" if owner is None else f"{owner.__name__} has"
    listing = ", ".join(choices)
    question = guess(name, choices)
    if len(listing) > _LONGEST_LIST:
        listing = "" if question else " fit --help shows its options."
    else:
        listing = f" Known options: {listing or 'none'}."
    return UsageError(f"{subject} no option {name!r}.{question}{listing}")


def _missing(names: str, place: str) -> UsageError:
    options = [f"{place}.{name.strip()}".lstrip(".") for name in names.replace("init_args.", "").split(",")]
    verb = "is" if len(options) == 1 else "are"
    hint = _hint(options[0]) if len(options) == 1 else ""
    return UsageError(f"{' and '.join(f'--{option}' for option in options)} {verb} missing.{hint}")


def _hint(option: str) -> str:
    kind = {"model": "tasks", "data": "data", "model.net": "networks"}.get(option)
    return "" if kind is None else f" Known names: {', '.join(plugin.name for plugin in plugins.installed(kind))}."


def _top_level(command: str) -> tuple[str, ...]:
    return (*_TOP_LEVEL, *(_FIT_ONLY if command == "fit" else ("out",)))


def _option_names(cls: type) -> list[str]:
    return [parameter.name for _, parameter in plugins.arguments(cls)]


def require_matching_batches(task: Any, data: Any) -> None:
    """Refuse a task and a data module whose batch types differ, or that declare none.

    Classes that were not written for leyden pass.
    """
    ours = [(cls, base) for cls, base in ((task, Task), (data, DataModule)) if _derives(cls, base)]
    for cls, base in ours:
        if cls.batch_type() is None and (breach := undeclared_batch(cls, base.__name__)):
            raise breach.error(cls)
    if len(ours) == 2 and task.batch_type() is not data.batch_type():
        reads, gives = task.batch_type(), data.batch_type()
        fitting = ", ".join(_data_giving(reads)) or "none is installed"
        raise UsageError(
            f"{task.__name__} reads {reads.__name__}, {data.__name__} gives {gives.__name__}. "
            f"Data for {task.__name__}: {fitting}."
        )
    for cls, base in ours:
        if breach := undeclared_batch(cls, base.__name__):
            raise breach.error(cls)


def _derives(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)


def _data_giving(batch_type: type) -> Iterable[str]:
    for plugin in plugins.installed("data"):
        try:
            cls = plugin.load()
        except LeydenError:
            continue
        if getattr(cls, "batch_type", lambda: None)() is batch_type:
            yield plugin.name
