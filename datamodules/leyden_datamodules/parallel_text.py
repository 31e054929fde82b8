"""Somebody's own sentence pairs."""

import re
from pathlib import Path
from typing import Any

from leyden.errors import DataError, UsageError
from leyden_datamodules._parallel import Columns, ParallelData, lines_of, made_up_pairs


class ParallelText(ParallelData):
    """Your own sentence pairs: one file with a tab between the two sentences of a line, or two files line by line.

    Args:
        root: the file. With `second`, the file of the first language.
        second: the file of the second language, whose lines are the translations of those of `root`.
        languages: those of the columns or files, two ISO 639-1 codes with a hyphen: `en-fr`.
        source: the language that is translated; without it the first one.
        **parallel_data: the arguments of every data module of sentence pairs.

    Raises:
        UsageError: without a root, for languages that are no pair, and for a value out of its range.
        DataError: for a file that cannot be used, naming it and the line.
    """

    def __init__(
        self,
        languages: str = "en-fr",
        root: str | None = None,
        second: str | None = None,
        source: str | None = None,
        **parallel_data: Any,
    ) -> None:
        super().__init__(root=root, source=source, **parallel_data)
        match = re.fullmatch(r"([a-z]{2,3})-([a-z]{2,3})", languages)
        if match is None or match[1] == match[2]:
            raise UsageError(f"languages is {languages!r}; it must be two different codes such as en-fr.")
        self.codes = (match[1], match[2])
        self.second = second

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """160 pairs in two files."""
        root.mkdir(parents=True, exist_ok=True)
        for name, sentences in zip(("text.en", "text.fr"), zip(*made_up_pairs(160), strict=True), strict=True):
            (root / name).write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
        sizes = {"val_size": 11, "test_size": 13, "batch_size": 16}
        return {"root": str(root / "text.en"), "second": str(root / "text.fr"), **sizes}

    def pair(self) -> tuple[str, str]:
        """The two languages."""
        return self.codes

    def path(self) -> Path:
        """The file given; there is no standard place for somebody's own text."""
        if self.root is None:
            raise UsageError("ParallelText needs your sentence pairs: --data.root FILE.")
        return Path(self.root).expanduser()

    def read(self, columns: Columns) -> Path:
        """The lines of the file, or of both files."""
        first = self._file(self.path())
        if self.second is None:
            columns.read(first, self.max_pairs)
            return first
        second = self._file(Path(self.second).expanduser())
        lines, others = lines_of(first), lines_of(second)
        if len(lines) != len(others):
            raise DataError(f"{first} has {len(lines)} lines and {second} has {len(others)}: they must be as many.")
        for number, (line, other) in enumerate(zip(lines, others, strict=True), start=1):
            if self.max_pairs is not None and len(columns.pairs.first) >= self.max_pairs:
                break
            columns.add(line, other, f"{first} and {second}, line {number}")
        return first

    @staticmethod
    def _file(path: Path) -> Path:
        if not path.is_file():
            raise DataError(f"{path}: no such file. Expected sentence pairs.")
        return path
