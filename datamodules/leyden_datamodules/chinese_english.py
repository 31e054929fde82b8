"""Chinese and English sentences: reading what Tatoeba and manythings.org give."""

from pathlib import Path
from typing import Any

from leyden.download import Attempt, NoSourceError
from leyden_datamodules._parallel import Columns, ParallelData, made_up_pairs

FILE = "cmn.txt"
ADDRESS = "https://www.manythings.org/anki/cmn-eng.zip"


class ChineseEnglish(ParallelData):
    """Chinese (Mandarin) and English sentences from Tatoeba, about 32,000 pairs.

    The folder cmn-eng holds cmn.txt: in each line English, a tab, Chinese; further columns, such as the attribution,
    are not read. The file is unpacked by hand from cmn-eng.zip of manythings.org/anki, which changes from time to time
    and refuses programs. Traditional and simplified characters are mixed in it.

    Args:
        source: `zh` translates Chinese into English, `en` English into Chinese.
        **parallel_data: the arguments of every data module of sentence pairs.

    Raises:
        UsageError: for a value out of its range, and for a library that is missing.
        DataError: for a file that is missing or cannot be used, naming it and the line.
    """

    folder = "cmn-eng"
    languages = ("en", "zh")

    def __init__(self, source: str = "zh", **parallel_data: Any) -> None:
        super().__init__(source=source, **parallel_data)

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """160 pairs in cmn.txt, Chinese by characters."""
        root.mkdir(parents=True, exist_ok=True)
        lines = (f"{first}\t{second}\tCC-BY 2.0\n" for first, second in made_up_pairs(160, chinese=True))
        (root / FILE).write_text("".join(lines), encoding="utf-8")
        return {"root": str(root), "source_level": "char", "val_size": 11, "test_size": 13, "batch_size": 16}

    @classmethod
    def fabricate_inputs(cls, folder: Path) -> list[str]:
        """Five texts: a sentence, unknown characters, a paragraph, nothing, a number."""
        return ["灰房子。", "鑫淼焱", "老河。灰商人！", "", "3.5"]

    def read(self, columns: Columns) -> Path:
        """The one file."""
        file = self.path() / FILE
        if not file.is_file():
            tried = [Attempt(str(file), "no such file"), Attempt(ADDRESS, "is to be fetched by hand, with a browser")]
            raise NoSourceError(FILE, tried, [file])
        columns.read(file, self.max_pairs)
        return file
