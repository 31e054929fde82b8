"""The Time Machine: fetching, verifying and reading it."""

from pathlib import Path
from typing import Any

from leyden.download import Attempt, Download, NoSourceError, fetch
from leyden.errors import DataError
from leyden_datamodules._text import TextData
from leyden_datamodules.text_file import SMALL, made_up_text

BOOK = Download(
    "timemachine.txt",
    ("http://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt",),
    "sha1:090b5e7e70c295757f55df93cb0a180b9691891a",
    size=178_979,
)


class TimeMachine(TextData):
    """The Time Machine by H. G. Wells (1898), 178,979 characters: the text of Dive into Deep Learning.

    Its file timemachine.txt is fetched into the data set's folder where it is missing there.

    Args:
        verify: check the file against its checksum. false reads another text of the same name, and fetches nothing.
        **text_data: the arguments of every data module of texts.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a missing, damaged or wrong file, naming it.
    """

    folder = "timemachine"

    def __init__(self, verify: bool = True, **text_data: Any) -> None:
        super().__init__(**text_data)
        self.verify = verify

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """A text of 11,000 characters."""
        root.mkdir(parents=True, exist_ok=True)
        (root / BOOK.name).write_text(made_up_text(11_000, seed=0), encoding="utf-8")
        return {"root": str(root), "verify": False, **SMALL}

    def fetch(self) -> None:
        """From the book's server. Raises NoSourceError where that does not work."""
        if self.verify:
            fetch(BOOK, self.path())
        self.files()

    def files(self) -> list[Path]:
        """The one file, verified."""
        file = self.path() / BOOK.name
        if not file.is_file():
            raise NoSourceError(BOOK.name, [Attempt(str(file), "no such file")], [file])
        if self.verify and (wrong := BOOK.mismatch(file)):
            raise DataError(f"{file}: is not The Time Machine: {wrong}. Remove it, and it is fetched again.")
        return [file]
