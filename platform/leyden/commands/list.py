"""`list [tasks|networks|data] [--broken]`: what is installed, from metadata alone."""

import argparse

from leyden import plugins
from leyden.errors import unknown


def run(command: str, arguments: list[str]) -> int:
    """Print the installed plugins; with `--broken`, import each and print only those that fail."""
    parser = argparse.ArgumentParser(prog=command, description="Show the installed plugins.", allow_abbrev=False)
    parser.add_argument("kind", nargs="?", help=f"only this kind: {', '.join(plugins.GROUPS)}")
    parser.add_argument("--broken", action="store_true", help="only plugins that cannot be imported, with the cause")
    options = parser.parse_args(arguments)
    if options.kind not in (None, *plugins.GROUPS):
        raise unknown("kind", options.kind, plugins.GROUPS)
    kinds = [options.kind] if options.kind else list(plugins.GROUPS)
    if options.broken:
        return _print_broken(kinds)
    print("\n\n".join(_table(kind) for kind in kinds))
    return 0


def _table(kind: str) -> str:
    found = plugins.installed(kind)
    shared = {plugin.name for plugin in found if [other.name for other in found].count(plugin.name) > 1}
    rows = [
        (
            plugin.qualified_name if plugin.name in shared else plugin.name,
            f"{plugin.package} {plugin.version}",
            plugin.description(),
        )
        for plugin in found
    ]
    if not rows:
        return f"{kind}: none installed"
    name_width, package_width = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"  {name:<{name_width}}  {package:<{package_width}}  {text}".rstrip() for name, package, text in rows]
    return "\n".join([f"{kind}:", *lines])


def _print_broken(kinds: list[str]) -> int:
    causes = [cause for kind in kinds for cause in plugins.broken(kind).values()]
    print("\n".join(causes) if causes else "no broken plugins")
    return 1 if causes else 0
