"""`list [tasks|networks|data] [--json] [--broken]`: what is installed, from metadata alone."""

import argparse
import json

from leyden import __version__, plugins
from leyden.errors import unknown
from leyden.plugins import Plugin


def run(command: str, arguments: list[str]) -> int:
    """Print the plugins; with `--broken`, import each and print only those that fail."""
    parser = argparse.ArgumentParser(prog=command, description="Show the installed plugins.", allow_abbrev=False)
    parser.add_argument("kind", nargs="?", help=f"only this kind: {', '.join(plugins.GROUPS)}")
    parser.add_argument("--json", action="store_true", help="for programs: one object with all that is known")
    text = "only plugins that cannot be imported or are made for another leyden, with the cause; imports every one"
    parser.add_argument("--broken", action="store_true", help=text)
    options = parser.parse_args(arguments)
    if options.kind not in (None, *plugins.GROUPS):
        raise unknown("kind", options.kind, plugins.GROUPS)
    kinds = [options.kind] if options.kind else list(plugins.GROUPS)
    if not options.broken:
        print(_json({kind: plugins.installed(kind) for kind in kinds}) if options.json else _tables(kinds))
        return 0
    causes = {kind: plugins.broken(kind) for kind in kinds}
    if options.json:
        print(_json({kind: list(found) for kind, found in causes.items()}, causes))
    else:
        print("\n".join(cause for found in causes.values() for cause in found.values()) or "no broken plugins")
    return 1 if any(causes.values()) else 0


def _json(found: dict[str, list[Plugin]], causes: dict[str, dict[Plugin, str]] | None = None) -> str:
    """`{"leyden": version, "tasks": [{"name": ..., "class_path": ..., ...}, ...], ...}`."""
    listed = {
        kind: [_entry(plugin, None if causes is None else causes[kind][plugin]) for plugin in offered]
        for kind, offered in found.items()
    }
    return json.dumps({"leyden": __version__, **listed}, indent=2, ensure_ascii=False)


def _entry(plugin: Plugin, cause: str | None) -> dict[str, str | None]:
    entry = {
        "name": plugin.name,
        "qualified_name": plugin.qualified_name,
        "class_path": plugin.class_path,
        "description": plugin.description(),
        "package": None if plugin.file else plugin.package,
        "version": plugin.version or None,
        "file": plugin.file or None,
        "requires_leyden": None if plugin.file else plugins.required(plugin.package),
    }
    return entry if cause is None else {**entry, "cause": cause}


def _tables(kinds: list[str]) -> str:
    return "\n\n".join(_table(kind) for kind in kinds)


def _table(kind: str) -> str:
    found = plugins.installed(kind)
    names = [plugin.name for plugin in found]
    rows = [
        (
            plugin.qualified_name if names.count(plugin.name) > 1 else plugin.name,
            f"{plugin.package} {plugin.version}".strip(),
            plugin.description(),
        )
        for plugin in found
    ]
    if not rows:
        return f"{kind}: none installed"
    name_width, package_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"  {name:<{name_width}}  {package:<{package_width}}  {text}".rstrip() for name, package, text in rows]
    return "\n".join([f"{kind}:", *lines])
