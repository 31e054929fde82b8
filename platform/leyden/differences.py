"""What differs between the configs of runs, by the options' dotted names."""

from collections.abc import Mapping, Sequence
from typing import Any

_ABSENT = object()


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The options that differ, sorted by name, with the value in each config; None where a config lacks the option.

    A config without the option (another class, an earlier version) counts as one where it is off: null, false, 0.
    """
    options = [flat(config) for config in configs]
    found = {name: [each.get(name, _ABSENT) for each in options] for name in sorted(set[str]().union(*options))}
    return {name: [_plain(value) for value in values] for name, values in found.items() if _differ(values)}


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """A config as {dotted name: value}, with the names that the command line has: without `init_args`."""
    if not isinstance(node, Mapping):
        return {prefix.rstrip("."): node}
    parts = [flat(value, prefix if key == "init_args" else f"{prefix}{key}.") for key, value in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def _differ(values: Sequence[Any]) -> bool:
    present = [value for value in values if value is not _ABSENT]
    if any(value != present[0] for value in present):
        return True
    return len(present) < len(values) and bool(present[0])


def _plain(value: Any) -> Any:
    return None if value is _ABSENT else value
