"""English and French sentences: fetching and reading the book's data set of translation."""

from pathlib import Path
from typing import Any

from leyden.download import Attempt, Download, NoSourceError, fetch, unpack_folder
from leyden_datamodules._parallel import Columns, ParallelData, made_up_pairs

ARCHIVE = Download(
    "fra-eng.zip",
    ("http://d2l-data.s3-accelerate.amazonaws.com/fra-eng.zip",),
    "sha1:94646ad1522d915e7b0f9296181140edcf86a4f5",
)
FILE = "fra.txt"


class EnglishFrench(ParallelData):
    """English and French sentences from Tatoeba, about 167,000 pairs (Dive into Deep Learning, 10.5).

    The folder fra-eng holds fra.txt: in each line English, a tab, French; further columns are not read. Where it is
    missing, the book's archive is downloaded into the folder. Newer files of the same form serve as well.

    Args:
        source: `en` translates English into French, `fr` French into English.
        **parallel_data: the arguments of every data module of sentence pairs.

    Raises:
        UsageError: for a value out of its range, and for a library that is missing.
        DataError: for a file that is missing or cannot be used, naming it and the line.
    """

    folder = "fra-eng"
    languages = ("en", "fr")

    def __init__(self, source: str = "en", **parallel_data: Any) -> None:
        super().__init__(source=source, **parallel_data)

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """160 pairs in fra.txt."""
        root.mkdir(parents=True, exist_ok=True)
        lines = ("\t".join(pair) + "\n" for pair in made_up_pairs(160))
        (root / FILE).write_text("".join(lines), encoding="utf-8")
        return {"root": str(root), "val_size": 11, "test_size": 13, "batch_size": 16}

    def fetch(self) -> None:
        """From the book's server. Raises NoSourceError where that does not work."""
        if not (self.path() / FILE).is_file():
            archive = fetch(ARCHIVE, self.path())
            unpack_folder([archive], "fra-eng", self.path(), [FILE])

    def read(self, columns: Columns) -> Path:
        """The one file."""
        file = self.path() / FILE
        if not file.is_file():
            raise NoSourceError(FILE, [Attempt(str(file), "no such file")], [file])
        columns.read(file, self.max_pairs)
        return file
