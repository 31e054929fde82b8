"""The errors that people are meant to read: what was found, what was expected, what to do."""

import difflib
from collections.abc import Iterable


class LeydenError(Exception):
    """A run cannot go on; the message is the whole report and no traceback is shown. Exit status 1."""

    exit_status = 1


class UsageError(LeydenError):
    """The command line or a config asks for something that does not exist or cannot be. Exit status 2."""

    exit_status = 2


class StoppedError(LeydenError):
    """The user or the machine asked the run to stop; everything up to now is saved."""

    exit_status = 130


class DataError(LeydenError):
    """A data file is missing, damaged or not what its format says; the message names the file."""

    def __init__(self, message: str) -> None:
        # a loader's worker hands the message over behind a traceback
        super().__init__(message.rpartition("leyden.errors.DataError: ")[2])


class CheckpointError(LeydenError):
    """A checkpoint is missing, damaged, of another task, or could not be written."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """One error for every misspelt name: what is unknown, the nearest known name, all known names."""
    choices = sorted(set(known))
    listing = ", ".join(choices) if choices else "none"
    return UsageError(f"unknown {kind} {name!r}.{guess(name, choices)} Known {kind} names: {listing}")


def guess(name: str, known: Iterable[str]) -> str:
    """The question " Did you mean X?" for a misspelt name, with a space before it; "" when nothing is near."""
    by_lower = {choice.lower(): choice for choice in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]}?" if near else ""
