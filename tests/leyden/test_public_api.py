"""docs/plugins.md lists every public name with its signature; here code and document are held against each other.

The document is the only list. When a test fails, the message has the lines as they must be; what a change of them means
for the version number, the document says under "What is public".
"""

import ast
import dataclasses
import importlib
import inspect
import re
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from leyden.batches import Facts

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugins.md"
BLOCK = re.compile(r"^```text\n(leyden\..*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^leyden(\.\w+)+")
PROTOCOL = ("__getitems__",)  # the only name with underscores that plugins are asked for


def listed() -> dict[str, str]:
    """The lines of the document's block, by the dotted name that each begins with."""
    [block] = BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
    lines = [line for line in block.splitlines() if line]
    names = [LINE.match(line) for line in lines]
    return {name[0]: line for name, line in zip(names, lines, strict=True) if name is not None}


def resolve(dotted: str) -> tuple[Any, Any]:
    """What a name stands for, and the module or class that it is found in. AttributeError where it is gone."""
    parts = dotted.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:-1]:
            owner = getattr(owner, part)
        declared = parts[-1] in inspect.get_annotations(owner) if isinstance(owner, type) else False
        return getattr(owner, parts[-1], None) if declared else getattr(owner, parts[-1]), owner
    raise AttributeError(dotted)


def signature(dotted: str) -> str:
    """The line that a name must have in the document, read from its source."""
    found, owner = resolve(dotted)
    name = dotted.rpartition(".")[2]
    if isinstance(owner, ModuleType) and not isinstance(found, type | FunctionType):
        return f"{dotted} = {found!r}"
    if isinstance(found, type):
        return dotted + constructor(found)
    if isinstance(owner, ModuleType):
        return dotted + call(statement(found.__module__, found.__qualname__))
    node = statement(owner.__module__, f"{owner.__qualname__}.{name}")
    if isinstance(node, ast.AnnAssign | ast.Assign):
        return dotted + ast.unparse(node).removeprefix(name)
    decorators = [ast.unparse(each) for each in node.decorator_list]
    if "property" in decorators:
        return f"{dotted}: {ast.unparse(node.returns)}"
    return dotted + call(node) + ("  # abstract" if "abstractmethod" in decorators else "")


def call(node: Any) -> str:
    """The arguments of a function definition and what it returns."""
    return f"({ast.unparse(node.args)})" + ("" if node.returns is None else f" -> {ast.unparse(node.returns)}")


def constructor(cls: type) -> str:
    """The arguments with which a class is made; "" where it has none of its own."""
    if dataclasses.is_dataclass(cls) or hasattr(cls, "_fields"):
        body = statement(cls.__module__, cls.__qualname__).body
        return f"({', '.join(ast.unparse(node) for node in body if isinstance(node, ast.AnnAssign))})"
    if "__init__" not in vars(cls) or getattr(cls, "_is_protocol", False):
        return ""
    arguments = statement(cls.__module__, f"{cls.__qualname__}.__init__").args
    arguments.args = arguments.args[1:]  # self
    return f"({ast.unparse(arguments)})"


def statement(module: str, qualname: str) -> Any:
    """The statement that defines a class, a function, or a name in a class body."""
    file = importlib.import_module(module).__file__
    assert file is not None
    node: Any = parsed(file)
    for part in qualname.split("."):
        named = (each for each in node.body if part in (getattr(each, "name", None), target(each)))
        node = next(named)
    return node


def target(node: Any) -> str | None:
    """The name that an assignment gives a value or a type to."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return targets[0].id if isinstance(targets[0], ast.Name) else None


def parsed(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def public_classes() -> list[tuple[str, type]]:
    """The listed names that stand for classes. One that is gone is another test's affair."""
    found = []
    for dotted in listed():
        with suppress(AttributeError):
            found.append((dotted, resolve(dotted)[0]))
    return [(dotted, each) for dotted, each in found if isinstance(each, type)]


def members(cls: type) -> set[str]:
    """The public names that a class brings in: none of its base classes has them, ours, Lightning's or torch's."""
    own = {*vars(cls), *inspect.get_annotations(cls)} - set(getattr(cls, "_fields", ()))
    own -= {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    public = {name for name in own if not name.startswith("_") or name in PROTOCOL}
    return {name for name in public if not any(hasattr(base, name) for base in cls.__mro__[1:])}


def test_the_document_has_a_line_for_each_name() -> None:
    assert len(listed()) > 50
    block = BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))[0]
    assert len(listed()) == len([line for line in block.splitlines() if line]), "a name is listed twice"


@pytest.mark.parametrize("dotted", listed())
def test_a_public_name_is_what_the_document_says(dotted: str) -> None:
    try:
        now = signature(dotted)
    except (AttributeError, StopIteration):
        pytest.fail(
            f"{dotted} is public and gone. Plugins break: keep it with a DeprecationWarning until the version that "
            f"{DOCUMENT.name} allows, then take its line out there."
        )
    assert now == listed()[dotted], (
        f"the signature of a public name has changed. If plugins written for the old one still work, replace its line "
        f"in {DOCUMENT.name} by the new one:\n{now}\nElse keep the old one working, as {DOCUMENT.name} promises."
    )


@pytest.mark.parametrize(("dotted", "cls"), public_classes(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_public_class_brings_in_is_in_the_document(dotted: str, cls: type) -> None:
    missing = [signature(f"{dotted}.{name}") for name in sorted(members(cls)) if f"{dotted}.{name}" not in listed()]
    wanted = "\n".join(missing)
    assert not missing, f"{DOCUMENT.name} lacks (or give it a name with an underscore, if it is not public):\n{wanted}"


def test_every_check_of_the_kit_is_in_the_document() -> None:
    names = {f"leyden.testing.{name}" for name in importlib.import_module("leyden.testing").__all__}
    assert names == {name for name in listed() if name.startswith("leyden.testing.")}


def test_every_batch_type_is_in_the_document() -> None:
    module = importlib.import_module("leyden.batches")
    own = [each for each in vars(module).values() if getattr(each, "__module__", "") == module.__name__]
    facts = [each for each in own if isinstance(each, type) and issubclass(each, Facts)]
    types = [*facts, *(each for each in own if hasattr(each, "facts_class"))]
    lines = [signature(f"leyden.batches.{each.__name__}") for each in types]
    missing = "\n".join(line for line in lines if line not in listed().values())
    assert not missing, f"{DOCUMENT.name} lacks:\n{missing}"
