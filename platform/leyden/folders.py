"""Writing into folders: early refusal, and files that are whole or not there."""

import csv
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leyden.errors import LeydenError


def require_writable(folder: Path) -> None:
    """Make a folder and try to write into it. Raises LeydenError when that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise not_writable(folder, error) from error


def not_writable(folder: Path, error: OSError) -> LeydenError:
    """The error for a folder that the run cannot write into."""
    reason = error.strerror or str(error)
    return LeydenError(
        f"the folder {folder} cannot be written: {reason}. Choose another with --runs FOLDER (fit) or --out FOLDER."
    )


@contextmanager
def replacing(path: Path, shared: bool = False) -> Iterator[Path]:
    """A name beside `path` to write to, which takes its place when all is written and vanishes when that fails.

    shared: other processes may write the same file at the same time.
    """
    own = f".{os.uname().nodename}.{os.getpid()}" if shared else ""
    temporary = path.with_name(f".{path.name}{own}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a table, its header first, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
