"""What Python source says without being run: where a module lies, which classes it defines, what they derive from."""

import ast
import importlib.util
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

DEEPEST = 12  # classes between one and its ancestor that is known; more is a circle

# the last name of an ancestor, the packages that it may come from, and what its descendants are
_ROOTS = {
    "Task": ("leyden", "tasks"),
    "LightningModule": ("lightning pytorch_lightning", "tasks"),
    "DataModule": ("leyden", "data"),
    "LightningDataModule": ("lightning pytorch_lightning", "data"),
}
# whatever class of these comes from torch's, torchvision's or timm's own files is a network
_NETWORKS = ("torch.nn.", "torchvision.models.", "timm.models.")
_NO_NETWORKS = ("Parameter", "Buffer", "ParameterList", "ParameterDict")
# where a class ends, or what it says of itself
_FIRST_METHOD = re.compile(r"^(?:\S|[ \t]+(?:def|async def|@))", re.MULTILINE)
_NEVER = ("torchmetrics.",)  # modules of torch, but no networks


@dataclass(frozen=True)
class Source:
    """A parsed module.

    classes: those defined at its top level, by name.
    imports: the dotted names of what comes from elsewhere, by the name that it has here.
    """

    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


def module_file(module: str) -> Path | None:
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


def parse(path: Path, module: str) -> Source:
    """Parse a file, which is imported as `module`. Raises OSError, SyntaxError or ValueError for what is no Python."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    source = Source()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            source.classes[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            source.imports.update(_imported(node, package))
    return source


def class_node(module: str, name: str) -> ast.ClassDef | None:
    """The definition of a class, perhaps without its methods; None where it has no source that can be read."""
    path = module_file(module)
    try:
        head = None if path is None else _head(path.read_text(encoding="utf-8"), name)
    except (OSError, ValueError):
        return None
    if head is not None:
        return head
    source = _source(module)
    return None if source is None else source.classes.get(name)


def _head(text: str, name: str) -> ast.ClassDef | None:
    """A class up to its first method: to parse whole files takes most of the time of `list`. None where that fails."""
    starts = [match.start() for match in re.finditer(rf"^class {name}\b", text, re.MULTILINE)]
    if not starts:
        return None
    block = text[starts[-1] :]
    end = _FIRST_METHOD.search(block, block.find("\n") + 1)
    try:
        [node] = ast.parse(block[: end.start() if end else None] + "\n    pass\n").body
    except (SyntaxError, ValueError):
        return None
    return node if isinstance(node, ast.ClassDef) else None


def kind_of(module: str, name: str) -> str | None:
    """`tasks`, `networks` or `data`: what a class derives from. None for anything else and where it is not known."""
    seen: list[str] = []
    queue = [f"{module}.{name}"]
    while queue and len(seen) < DEEPEST:
        ancestor = queue.pop(0)
        if ancestor in seen or ancestor.startswith(_NEVER):
            continue
        seen.append(ancestor)
        if found := _root_kind(ancestor):
            return found
        queue += _above(ancestor)
    return None


def _root_kind(dotted: str) -> str | None:
    packages, kind = _ROOTS.get(dotted.rpartition(".")[2], ("", ""))
    if dotted.partition(".")[0] in packages.split():
        return kind
    is_network = dotted.startswith(_NETWORKS) and dotted.rpartition(".")[2] not in _NO_NETWORKS
    return "networks" if is_network else None


def _above(dotted: str) -> list[str]:
    """The bases of a class, or what a name that was imported stands for, as dotted names."""
    module, _, name = dotted.rpartition(".")
    source = _source(module)
    if source is None:
        return []
    if name in source.classes:
        return [_dotted(base, module, source) for base in source.classes[name].bases]
    return [source.imports[name]] if name in source.imports else []


def _dotted(base: ast.expr, module: str, source: Source) -> str:
    """`Task[Batch]` becomes `leyden.task.Task`."""
    parts: list[str] = []
    node = base.value if isinstance(base, ast.Subscript) else base
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    first = node.id if isinstance(node, ast.Name) else ""
    return ".".join([source.imports.get(first, f"{module}.{first}"), *parts])


def _imported(node: ast.Import | ast.ImportFrom, package: str) -> dict[str, str]:
    if isinstance(node, ast.Import):
        # `import torch.nn` gives the name torch, `import torch.nn as nn` the name nn
        return {each.asname or each.name.partition(".")[0]: _bound(each) for each in node.names}
    parents = package.split(".")
    above = parents[: len(parents) - node.level + 1] if node.level else []
    origin = ".".join([*above, *([node.module] if node.module else [])])
    return {each.asname or each.name: f"{origin}.{each.name}" for each in node.names}


def _bound(name: ast.alias) -> str:
    return name.name if name.asname else name.name.partition(".")[0]


def _source(module: str) -> Source | None:
    path = module_file(module)
    try:
        return None if path is None else _parsed(path, module, path.stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError):
        return None


@cache
def _parsed(path: Path, module: str, modified: int) -> Source:
    """`modified` in nanoseconds: a file that has changed is read anew."""
    return parse(path, module)
