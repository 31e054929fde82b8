"""`new task|data|network NAME [--into DIR]`: writes an installable package that works as it is.

A template is such a package itself, under leyden/templates; on the way only its names change.
"""

import argparse
import importlib.util
import keyword
import os
import re
import shlex
import sys
import tempfile
import tokenize
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from leyden import __version__, plugins
from leyden.errors import LeydenError, UsageError, unknown

TEMPLATES = Path(__file__).parents[1] / "templates"
KINDS = ("task", "data", "network")
LEFT_BEHIND = re.compile(r"__pycache__|\..*_cache")  # by whoever ran a template where it is
LONGEST_NAME = 30  # characters; the lines of the templates have room for no more
ANOTHER = "Choose another name."
NEXT = """next:
  cd {folder}
  pip install -e ".[test]"
  python -m pytest
  leyden fit --config {module}.yaml"""


def run(command: str, arguments: list[str]) -> int:
    """Write the package, and say what was written and what to type next."""
    description = "Write an installable package with a plugin of your own, which works as it is."
    parser = argparse.ArgumentParser(prog=command, description=description, allow_abbrev=False)
    parser.add_argument("kind", help=f"what to write: {', '.join(KINDS)}")
    parser.add_argument("name", metavar="NAME", help="the name of the class, such as Sonar; its package is then sonar")
    parser.add_argument("--into", default=".", metavar="DIR", help="the folder in which the package gets its own")
    options = parser.parse_args(arguments)
    if options.kind not in KINDS:
        raise unknown("kind", options.kind, KINDS)
    name = class_name(options.name)
    module = module_name(name)
    folder = Path(options.into) / module
    files = dict(sorted(_rendered(options.kind, name, module)))
    offered = _offered(files["pyproject.toml"])
    _require_place(folder)
    _require_unused(options.kind, name)
    _require_free(module, offered)
    _write(files, folder)
    what = ", ".join(f"{plugins.SINGULAR[group]} {each}" for group, each in offered)
    print(f"wrote {folder}, a package that offers {what}:")
    print("\n".join(f"  {file}" for file in files))
    print(NEXT.format(folder=shlex.quote(str(folder)), module=module))
    return 0


def class_name(name: str) -> str:
    """A name as classes are written: `my_sonar` is MySonar. Raises UsageError for what can be no class's name."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        expected = "a letter, then letters, digits and underscores, such as Sonar"
        raise UsageError(f"{name!r} cannot be the name of a class: expected {expected}.")
    if keyword.iskeyword(name) or keyword.iskeyword(name.lower()):
        raise UsageError(f"{name!r} is a word of the language Python. {ANOTHER}")
    if len(name) > LONGEST_NAME:
        raise UsageError(f"{name!r} has {len(name)} characters, expected at most {LONGEST_NAME}. {ANOTHER}")
    return "".join(part[0].upper() + part[1:] for part in name.split("_") if part)


def module_name(class_name: str) -> str:
    """A class's name as modules are written: MySonar is my_sonar."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()


def _rendered(kind: str, name: str, module: str) -> Iterator[tuple[str, str]]:
    """The files of a kind's template, path and text, with the names changed in both."""
    names = {
        f"New{kind.capitalize()}": name,
        f"new_{kind}": module,
        f"new-{kind}": module.replace("_", "-"),
        "leyden>=0.0": f"leyden>={__version__.rpartition('.')[0]}",
    }
    pattern = re.compile("|".join(map(re.escape, names)))
    for path in (TEMPLATES / kind).rglob("*"):
        relative = path.relative_to(TEMPLATES / kind)
        if path.is_file() and not any(map(LEFT_BEHIND.fullmatch, relative.parts)):
            texts = (relative.as_posix(), path.read_text(encoding="utf-8"))
            file, text = (pattern.sub(lambda found: names[found[0]], each) for each in texts)
            yield file, text


def _offered(pyproject: str) -> list[tuple[str, str]]:
    """What a package offers: (group, name) of each of its entry points."""
    points = tomllib.loads(pyproject)["project"]["entry-points"]
    return [(kind, name) for kind, group in plugins.GROUPS.items() for name in points.get(group, ())]


def _require_place(folder: Path) -> None:
    """Raises UsageError where the folder is there already, or the one around it is not."""
    if os.path.lexists(folder):
        raise UsageError(f"{folder} is there already, and nothing is overwritten. {ANOTHER}")
    if not folder.parent.is_dir():
        what = "is not a folder" if folder.parent.exists() else "does not exist"
        raise UsageError(f"{folder.parent} {what}; --into names the folder in which {folder.name} is made.")


def _require_unused(kind: str, name: str) -> None:
    """Raises UsageError for a name that the template's own code means something else by, such as Tensor."""
    for path in (TEMPLATES / kind).rglob("*.py"):
        with tokenize.open(path) as file:
            if name in (token.string for token in tokenize.generate_tokens(file.readline)):
                raise UsageError(f"the code that would be written means something else by {name}. {ANOTHER}")


def _require_free(module: str, offered: list[tuple[str, str]]) -> None:
    """Raises UsageError where something that is installed has one of the names, however its letters are written."""
    for group, name in offered:
        for plugin in plugins.installed(group):
            if plugin.name.lower() == name.lower():
                what = f"{plugins.SINGULAR[group]} {plugin.name}"
                raise UsageError(f"{plugin.origin} offers a {what} already. {ANOTHER}")
    try:
        found = distribution(module)
    except PackageNotFoundError:
        pass
    else:
        raise UsageError(f"the package would be called {module}, and {found.name} is installed already. {ANOTHER}")
    modules = {plugin.target.partition(".")[0] for group in plugins.GROUPS for plugin in plugins.installed(group)}
    taken = [*sys.stdlib_module_names, *modules]
    spec = importlib.util.find_spec(module)
    is_module = spec is not None and spec.origin is not None  # any folder at hand is a package without an origin
    if is_module or module in (each.lower() for each in taken):
        raise UsageError(f"the package would be called {module}, and so is a module that is installed. {ANOTHER}")


def _write(files: dict[str, str], folder: Path) -> None:
    """Write all files or none. Raises LeydenError where that fails."""
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unfinished:
            for file, text in files.items():
                path = Path(unfinished, folder.name, file)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            Path(unfinished, folder.name).rename(folder)
    except OSError as error:
        raise LeydenError(f"{folder} cannot be written: {error.strerror or error}. Nothing is left of it.") from error
