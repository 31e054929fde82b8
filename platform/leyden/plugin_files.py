"""Plugin files: Python files whose classes are offered by their names, with no package around them.

`--plugins FILE` on any command line, LEYDEN_PLUGINS (files divided as in PATH) and `plugins: [FILE, ...]` in a config
name them. A file becomes the module of its name, and its folder is searched last for imports, so that files beside it
are found too. A folder with an `__init__.py` is taken as a package. Nothing is imported until a class is used.

The files in use are kept in the environment, where the other processes of a run find them.
"""

import importlib.util
import keyword
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from leyden import sources
from leyden.errors import UsageError

ENVIRONMENT = "LEYDEN_PLUGINS"
OPTION = "--plugins"
CONFIG_KEY = "plugins"
_CLASS_PATH = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")


class Offer(NamedTuple):
    """A class in a plugin file: `tasks`, `networks` or `data`; its name; `module:Class`; the file that was named."""

    kind: str
    name: str
    target: str
    file: Path


@contextmanager
def in_use(words: Sequence[str]) -> Iterator[list[str]]:
    """The words without `--plugins FILE`. As long as it lasts, these files and those of LEYDEN_PLUGINS are in use.

    Raises UsageError for a file that is not there or cannot be a module.
    """
    before, folders = os.environ.get(ENVIRONMENT), sys.path[:]
    named, rest = _split(words)
    try:
        always = [name for name in os.environ.pop(ENVIRONMENT, "").split(os.pathsep) if name]
        use(always, ENVIRONMENT)
        use(named, OPTION)
        if "LOCAL_RANK" not in os.environ:  # the other processes of a run need not say it again
            _warn_of_empty([*always, *named])
        yield rest
    finally:
        for folder in {str(path.parent) for path in files()} - set(folders):
            if folder in sys.path:
                sys.path.remove(folder)
        os.environ.pop(ENVIRONMENT, None)
        if before is not None:
            os.environ[ENVIRONMENT] = before


def files() -> list[Path]:
    """The files in use."""
    return [Path(name) for name in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if name]


def use(names: Iterable[str], where: str) -> None:
    """Offer the classes of these files from now on. Raises UsageError, which begins with `where` the file was named."""
    for name in names:
        path = Path(name).expanduser().resolve()
        if path in files():
            continue
        _require_module(path, f"{where} {name}")
        os.environ[ENVIRONMENT] = os.pathsep.join(map(str, [*files(), path]))
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))


def recall(names: Iterable[str]) -> list[Path]:
    """Use the files of an earlier run again, and return those that are gone.

    Where there is another module of the same name, that one is meant: the file was moved, or is installed by now.
    """
    gone: list[Path] = []
    for path in map(Path, names):
        there = path.expanduser().resolve()
        if there in files() or _taken(there):
            continue
        if there.exists():
            use([str(there)], OPTION)
        else:
            gone.append(path)
    return gone


def offers() -> list[Offer]:
    """Every class of the files in use that is a task, a network or a data module; read from their source."""
    found: list[Offer] = []
    for file in files():
        for path in sorted(file.rglob("*.py")) if file.is_dir() else [file]:
            module = _module_of(path, file)
            names = [name for name in _classes(path, module) if not name.startswith("_")]
            kinds = ((sources.kind_of(module, name), name) for name in names)
            found += [Offer(kind, name, f"{module}:{name}", file) for kind, name in kinds if kind is not None]
    return found


def behind(config: Any) -> list[str]:
    """The files that a config needs: those in use, and modules of the current folder that it names classes of."""
    found = files()
    for top in sorted({name.partition(".")[0] for name in _strings(config) if _CLASS_PATH.match(name)}):
        origin = getattr(sys.modules.get(top), "__file__", None)
        if origin is None or top == "__main__":
            continue
        path = Path(origin).resolve()
        path = path.parent if path.name == "__init__.py" else path
        if path.parent == Path.cwd() and path not in found:
            found.append(path)
    return [str(path) for path in found]


def require_modules(config: Any, gone: Sequence[Path]) -> None:
    """Raises UsageError for a class of an earlier run whose module is not there. `gone`: what `recall` did not find."""
    for class_path in _class_paths(config):
        top = class_path.partition(".")[0]
        if importlib.util.find_spec(top) is not None:
            continue
        file = next((path for path in gone if path.stem == top), None)
        if file is None:
            hint = f"Install the package that it comes from, or name its file: {OPTION} FILE."
        else:
            hint = f"In training it was {file}, which is gone. Name where it is now: {OPTION} FILE."
        raise UsageError(f"the run was trained with {class_path}, but there is no module {top} here. {hint}")


def _class_paths(node: Any) -> Iterator[str]:
    if isinstance(node, dict) and isinstance(node.get("class_path"), str):
        yield node["class_path"]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _class_paths(child)


def _warn_of_empty(names: Iterable[str]) -> None:
    """Say which files offer nothing; their classes may still be used by their paths."""
    offering = {offer.file for offer in offers()}
    for name in names:
        if Path(name).expanduser().resolve() not in offering:
            needed = "no class in it that derives from Task, DataModule, Lightning's own or torch.nn.Module"
            print(f"warning: {name} offers no task, network or data module: there is {needed}.", file=sys.stderr)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    named: list[str] = []
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        option, equals, value = word.partition("=")
        if option != OPTION:
            rest.append(word)
            continue
        value = value if equals else next(waiting, "")
        if not value or value.startswith("--"):
            raise UsageError(f"{OPTION} needs a value: a Python file.")
        named.append(value)
    return named, rest


def _require_module(path: Path, what: str) -> None:
    """Raises UsageError unless the file can be imported by its name, and is the only one of that name."""
    if not path.exists():
        raise UsageError(f"{what}: there is no such file.")
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise UsageError(f"{what} is a folder without an __init__.py, so no package. Name a Python file.")
    if os.pathsep in str(path):
        raise UsageError(f"{what}: {os.pathsep!r} in a path divides files in {ENVIRONMENT}. Rename the folder or file.")
    if not path.is_dir() and path.suffix != ".py":
        raise UsageError(f"{what} is no Python file: its name does not end in .py.")
    if not path.stem.isidentifier() or keyword.iskeyword(path.stem):
        usable = re.sub(r"\W", "_", path.stem) if not keyword.iskeyword(path.stem) else f"{path.stem}_"
        raise UsageError(f"{what} cannot be imported under this name. Rename it, for example to {usable}{path.suffix}.")
    if not path.is_dir():
        try:
            sources.parse(path, path.stem)
        except (OSError, SyntaxError, ValueError) as error:
            raise UsageError(f"{what} cannot be read as Python: {_cause(error)}.") from error
    if other := next((file for file in files() if file.stem == path.stem), None):
        raise UsageError(f"{what}: {other} has the same name, and both would be the module {path.stem}. Rename one.")
    if taken_by := _taken(path):
        raise UsageError(f"{what}: the name {path.stem} is taken by another module, {taken_by}. Rename the file.")


def _cause(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}" if error.lineno else error.msg
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return str(getattr(error, "strerror", None) or error)


def _taken(path: Path) -> str | None:
    """Where the module of this name comes from when it is not this file; None where it is, or where there is none."""
    local = [Path.cwd() / f"{path.stem}.py", Path.cwd() / path.stem / "__init__.py"]  # tasks in the current folder
    if other := next((each for each in local if each.is_file() and not _same(each, path)), None):
        return str(other)
    try:
        spec = importlib.util.find_spec(path.stem)
    except (ImportError, ValueError):
        return "which is loaded already"
    if spec is None or (spec.origin and _same(Path(spec.origin), path)):
        return None
    return str(spec.origin or next(iter(spec.submodule_search_locations or []), "which is loaded already"))


def _same(origin: Path, path: Path) -> bool:
    """Whether a module's file belongs to a plugin file, or to the package of that folder."""
    return origin.resolve() in (path, path / "__init__.py")


def _module_of(path: Path, file: Path) -> str:
    inner = path.relative_to(file.parent).with_suffix("").parts
    return ".".join(inner[:-1] if inner[-1] == "__init__" else inner)


def _classes(path: Path, module: str) -> list[str]:
    try:
        return list(sources.parse(path, module).classes)
    except (OSError, SyntaxError, ValueError):
        return []


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        yield from _strings(child)
