"""EnglishFrench: reading the book's file, fetching it, and what may be wrong; on an archive made up in its place."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leyden.batches import SPECIALS, SentencePairs, TranslationFacts, texts_of
from leyden.download import Download, NoSourceError
from leyden.errors import DataError, UsageError
from leyden_datamodules import english_french
from leyden_datamodules.english_french import ARCHIVE, FILE, EnglishFrench

pytestmark = pytest.mark.usefixtures("nothing_else_here")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "fra-eng"


@pytest.fixture
def archive(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that puts a zip of these names and contents where the download would; the default is a good one."""
    EnglishFrench.fabricate(tmp_path / "made")

    def put(members: dict[str, bytes] | None = None) -> Path:
        if members is None:
            content = (tmp_path / "made" / FILE).read_bytes()
            members = {"fra-eng/_about.txt": b"about", f"fra-eng/{FILE}": content}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)
        root.mkdir(exist_ok=True)
        (root / ARCHIVE.name).write_bytes(packed.getvalue())
        checksum = f"sha1:{hashlib.sha1(packed.getvalue(), usedforsecurity=False).hexdigest()}"
        monkeypatch.setattr(english_french, "ARCHIVE", replace(ARCHIVE, checksum=checksum, urls=()))
        return root

    return put


def loaded(**arguments: Any) -> EnglishFrench:
    data = EnglishFrench(**arguments)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def facts_of(data: EnglishFrench) -> TranslationFacts:
    assert isinstance(data.facts, TranslationFacts)
    return data.facts


def test_fabricated_set(root: Path) -> None:
    data = loaded(**EnglishFrench.fabricate(root))
    assert EnglishFrench.batch_type() is SentencePairs
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 136, "val": 11, "test": 13}
    facts = facts_of(data)
    assert (facts.source.language, facts.target.language) == ("en", "fr")
    assert (facts.source.level, facts.target.level) == ("word", "word")
    assert facts.source.symbols[:5] == (*SPECIALS, "the"), "the most frequent word comes first"
    assert facts.target.symbols[4] == "le"


def test_french_may_be_the_source(root: Path) -> None:
    facts = facts_of(loaded(**EnglishFrench.fabricate(root), source="fr"))
    assert (facts.source.language, facts.target.language) == ("fr", "en")
    assert facts.source.symbols[4] == "le"


def test_another_language_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="source is 'de'; it must be en or fr"):
        loaded(**EnglishFrench.fabricate(root), source="de")


def test_newer_files_of_the_same_form_serve_as_well(root: Path) -> None:
    root.mkdir()
    lines = [f"Word {number}.\tMot\u202f{number}\u00a0!\tCC-BY 2.0 (France) #{number}\n" for number in range(30)]
    (root / FILE).write_text("".join(lines), encoding="utf-8")
    data = loaded(root=str(root), val_size=3, test_size=4)
    source: Any = data.splits["test"]
    batch = source.__getitems__([0, 1, 2, 3])
    for words, reference in zip(texts_of(batch.words), texts_of(batch.references), strict=True):
        number = words.split()[1]
        assert words == f"word {number} ."
        assert reference == f"Mot {number} !"
    assert facts_of(data).target.symbols == (*SPECIALS, "!", "mot")


def test_the_archive_is_the_books() -> None:
    url = "http://d2l-data.s3-accelerate.amazonaws.com/fra-eng.zip"
    assert Download("fra-eng.zip", (url,), "sha1:94646ad1522d915e7b0f9296181140edcf86a4f5") == ARCHIVE


def test_an_archive_is_unpacked_where_the_file_is_missing(archive: Callable[..., Path]) -> None:
    root = archive()
    data = loaded(root=str(root), val_size=11, test_size=13)
    assert len(data.splits["test"]) == 13
    assert sorted(path.name for path in root.iterdir()) == ["fra-eng.zip", "fra.txt"]
    (root / ARCHIVE.name).unlink()
    loaded(root=str(root), val_size=11, test_size=13)  # it is there: nothing is fetched again


def test_it_is_found_in_its_place(archive: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    root = archive()
    monkeypatch.setenv("LEYDEN_DATA", str(root.parent))
    loaded(val_size=11, test_size=13)
    assert EnglishFrench.locate() == root
    assert (root / FILE).is_file()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../outside.txt", r"'\.\./outside\.txt' would be written outside"),
        ("/outside.txt", "would be written outside"),
        ("fra.txt", r"cannot be unpacked to .*fra-eng: No such file"),
    ],
)
def test_bad_archives(archive: Callable[..., Path], tmp_path: Path, member: str, message: str) -> None:
    root = archive({member: b"x"})
    with pytest.raises(DataError, match=rf"fra-eng\.zip.*{message}"):
        EnglishFrench(root=str(root)).prepare_data()
    assert [path.name for path in root.iterdir()] == ["fra-eng.zip"]
    assert not list(tmp_path.rglob("*outside*"))


def test_an_archive_that_is_cut_off(archive: Callable[..., Path]) -> None:
    root = archive()
    (root / ARCHIVE.name).write_bytes((root / ARCHIVE.name).read_bytes()[:500])
    with pytest.raises(NoSourceError, match="wrong sha1"):
        EnglishFrench(root=str(root)).prepare_data()
    assert [path.name for path in root.iterdir()] == ["fra-eng.zip"]


def test_offline_it_says_where_to_put_the_archive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:9/fra-eng.zip"
    monkeypatch.setattr(english_french, "ARCHIVE", replace(ARCHIVE, urls=(url,)))
    with pytest.raises(NoSourceError) as caught:
        EnglishFrench(root=str(root)).prepare_data()
    assert url in str(caught.value)
    assert str(root / "fra-eng.zip") in str(caught.value)
    assert list(root.iterdir()) == []


def test_without_the_file_the_error_says_where_it_goes(root: Path) -> None:
    with pytest.raises(NoSourceError, match=str(root / FILE)):
        EnglishFrench(root=str(root)).setup("fit")


def test_a_bad_line_is_named(root: Path) -> None:
    arguments = EnglishFrench.fabricate(root)
    with (root / FILE).open("a", encoding="utf-8") as file:
        file.write("no tab\n")
    with pytest.raises(DataError, match=r"fra\.txt, line 161: has no tab"):
        loaded(**arguments)
    with pytest.warns(UserWarning, match=r"lines left out: 1\. The first: .*fra\.txt, line 161"):
        loaded(**arguments, on_error="skip")
