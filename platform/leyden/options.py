"""Checks of the options that a network is built with."""

from collections.abc import Sequence


def require_positive(**sizes: int | Sequence[int]) -> None:
    """ValueError unless every size, or every member of a list of sizes, is at least 1."""
    for name, size in sizes.items():
        members = [size] if isinstance(size, int) else size
        if not members or min(members) < 1:
            expected = "a number of at least 1" if isinstance(size, int) else "one or more numbers of at least 1"
            raise ValueError(f"{name} is {size}, expected {expected}.")


def require_probability(**probabilities: float) -> None:
    """ValueError unless every number is within 0..1."""
    for name, probability in probabilities.items():
        if not 0 <= probability <= 1:
            raise ValueError(f"{name} is {probability}, expected a probability from 0 to 1.")


def require_choice(name: str, found: object, choices: Sequence[object]) -> None:
    """ValueError unless `found` is one of the choices."""
    if found not in choices:
        raise ValueError(f"{name} is {found!r}, expected one of {', '.join(map(str, choices))}.")
