"""What the parts of the kit share: one way to fail, documented arguments, comparing tensors."""

import inspect
import re
from typing import Any

import torch
from torch import Tensor

from leyden.plugins import arguments
from leyden.rules import Breach


class BrokenRule(AssertionError):  # noqa: N818  # a verdict, not a mishap
    """What was found, and why it matters."""

    def __init__(self, found: str, why: str) -> None:
        super().__init__(f"{found}. {why}")
        self.found = found
        self.why = why


def require(condition: object, found: str, why: str) -> None:
    """BrokenRule unless the condition holds: what was found, and why it matters."""
    if not condition:
        raise BrokenRule(found, why)


def require_kept(name: str, breach: Breach | None) -> None:
    """BrokenRule for what the engine would refuse as well, in its words."""
    if breach is not None:
        raise BrokenRule(f"{name}: {breach.found}", breach.why)


def check_documented(cls: type) -> None:
    """A class says in one line what it is, and what each of its arguments means."""
    first_line = (cls.__doc__ or "").strip().partition("\n")[0]
    require(first_line, f"{cls.__name__} has no docstring", "`leyden list` shows its first line, and nothing else.")
    for owner, parameter in arguments(cls):
        _require_explained(owner, parameter)


def _require_explained(owner: type, parameter: inspect.Parameter) -> None:
    what = f"the argument {parameter.name} of {owner.__name__}"
    explained = re.search(rf"^\s*{parameter.name}\b[^:]*:", owner.__doc__ or "", re.MULTILINE)
    require(explained, f"{what} is not in its docstring as `{parameter.name}: ...`", "`--help` shows no other text.")
    typed = parameter.annotation is not parameter.empty
    require(typed, f"{what} has no type", "The command line offers only arguments with a type.")


def equal(one: Any, other: Any) -> bool:
    """Whether two nests of tensors are the same in every bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)
