"""TimeMachine: the right file is used, another is not; on a text made up in its place."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from leyden.download import NoSourceError
from leyden.errors import DataError
from leyden_datamodules import time_machine
from leyden_datamodules.time_machine import BOOK, TimeMachine

TEXT = "The Time Machine, by H. G. Wells [1898]\n" * 40


@pytest.fixture(autouse=True)
def nothing_else_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other copy is in reach, no network, and TEXT is the book."""
    monkeypatch.delenv("LEYDEN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    sha1 = hashlib.sha1(TEXT.encode(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(time_machine, "BOOK", replace(BOOK, urls=(), checksum=f"sha1:{sha1}", size=len(TEXT)))


def write(text: str) -> Path:
    file = Path("data", "timemachine", "timemachine.txt")
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return file


def test_the_book_is_found_in_its_place() -> None:
    write(TEXT)
    data = TimeMachine(clean=True)
    data.prepare_data()
    data.setup("fit")
    assert data.facts is not None
    assert "".join(data.facts.symbols[1:]) == " abceghilmnstwy"
    assert TimeMachine.locate() == Path("data", "timemachine")


def test_the_book_is_fetched_and_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(download: object, folder: Path) -> Path:
        assert download is time_machine.BOOK
        return write(TEXT)

    monkeypatch.setattr(time_machine, "fetch", fetch)
    TimeMachine().prepare_data()


def test_another_text_is_not_taken_for_the_book() -> None:
    file = write(TEXT.replace("1898", "1895"))
    with pytest.raises(NoSourceError, match=r"timemachine\.txt: wrong sha1"):
        TimeMachine().prepare_data()
    with pytest.raises(DataError, match=r"timemachine\.txt: is not The Time Machine: wrong sha1"):
        TimeMachine().setup("fit")
    file.write_text(TEXT[:-1])
    with pytest.raises(DataError, match=f"{len(TEXT) - 1} bytes, expected {len(TEXT)}"):
        TimeMachine().setup("fit")


def test_another_text_may_be_read_without_verification() -> None:
    write("abc" * 200)
    data = TimeMachine(verify=False)
    data.prepare_data()
    data.setup("fit")
    assert data.facts is not None
    assert data.facts.symbols == ("<unk>", "a", "b", "c")


@pytest.mark.parametrize("verify", [True, False])
def test_without_the_file_the_error_says_where_it_goes(verify: bool, tmp_path: Path) -> None:
    with pytest.raises(NoSourceError, match=str(tmp_path / "here" / "timemachine.txt")):
        TimeMachine(root="here", verify=verify).prepare_data()
