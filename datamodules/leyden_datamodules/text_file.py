"""A user's own text."""

import os
import random
from pathlib import Path
from typing import Any

from leyden.errors import DataError, UsageError
from leyden_datamodules._text import TextData


class TextFile(TextData):
    """Your own text for a language model: one UTF-8 file, or all .txt files of a folder, behind each other by name.

    Args:
        **text_data: the arguments of every data module of texts. `root` is the file or the folder; files in its
            sub-folders count, hidden ones do not.

    Raises:
        UsageError: without a root, and for a value out of its range.
        DataError: for a text that cannot be used, naming its file.
    """

    def __init__(self, **text_data: Any) -> None:
        super().__init__(**text_data)

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """A text of 11,000 characters, in two files."""
        root.mkdir(parents=True, exist_ok=True)
        for seed, name in enumerate(("first.txt", "second.txt")):
            (root / name).write_text(made_up_text(5500, seed), encoding="utf-8")
        return {"root": str(root), **SMALL}

    def path(self) -> Path:
        """The file or folder given; there is no standard place for somebody's own text."""
        if self.root is None:
            raise UsageError("TextFile needs your text: --data.root FILE (or a folder of .txt files).")
        return Path(self.root).expanduser()

    def files(self) -> list[Path]:
        """The one file, or the .txt files of the folder, sorted by path."""
        root = self.path()
        if root.is_file():
            return [root]
        if not root.is_dir():
            raise DataError(f"{root}: no such file or folder.")
        found = []
        for path, folders, names in os.walk(root, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(path, name) for name in names if name.endswith(".txt") and not name.startswith(".")]
        if not found:
            raise DataError(f"{root}: no .txt files in this folder.")
        return sorted(found)


# rows that end in different batches: 3 of 80 tokens and one more validate, 3 of 120 and one more are tested on
SMALL = {"num_steps": 20, "eval_rows": 3, "val_size": 241, "test_size": 361, "batch_size": 16}


def made_up_text(length: int, seed: int) -> str:
    """Lines of words in random order, so many characters in all."""
    words = ["and", "came", "down", "from", "grey", "house", "merchant", "night", "of", "old", "river", "the", "went"]
    order = random.Random(seed)
    lines = (" ".join(order.choices(words, k=9)).capitalize() + "." for _ in range(length // 20))
    return "\n".join(lines)[:length]
