"""The errors that people are meant to read: what was found, what was expected, what to do."""

import difflib
from collections.abc import Iterable


class LeydenError(Exception):
    """A run cannot go on; the message is the whole report and no traceback is shown. Exit status 1."""

    exit_status = 1


class UsageError(LeydenError):
    """The command line or a config asks for something that does not exist or cannot be. Exit status 2."""

    exit_status = 2


class DataError(LeydenError):
    """A data file is missing, damaged or not what its format says; the message names the file."""


class CheckpointError(LeydenError):
    """A checkpoint is missing, damaged, of another task, or could not be written."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """One error for every misspelt name: what is unknown, the nearest known name, all known names."""
    choices = sorted(set(known))
    by_lower = {choice.lower(): choice for choice in choices}
    near = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)]
    guess = f" Did you mean {near[0]}?" if near else ""
    listing = ", ".join(choices) if choices else "none"
    return UsageError(f"unknown {kind} {name!r}.{guess} Known {kind} names: {listing}")
