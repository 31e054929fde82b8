"""ChineseEnglish: reading Tatoeba's file, its characters and words, and where to get it by hand."""

import sys
from pathlib import Path
from typing import Any

import pytest

from leyden.batches import SPECIALS, SentencePairs, TranslationFacts, texts_of
from leyden.download import NoSourceError
from leyden.errors import DataError, UsageError
from leyden_datamodules.chinese_english import ADDRESS, FILE, ChineseEnglish

pytestmark = pytest.mark.usefixtures("nothing_else_here")
SENTENCES = ["我们来到北京。", "他們說漢語!", "我有３.5个ＡＢＣ，", "她 不 在 这 里?"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cmn-eng"


def write(root: Path, chinese: list[str], copies: int = 1) -> Path:
    """A file with these sentences, and many more of which each occurs once."""
    root.mkdir()
    rows = [(f"Sentence {number}.", sentence) for number, sentence in enumerate(chinese * copies)]
    rows += [(f"Other {number}!", f"其他{number}。") for number in range(30)]
    (root / FILE).write_text("".join(f"{en}\t{zh}\tCC-BY 2.0\n" for en, zh in rows), encoding="utf-8")
    return root


def loaded(**arguments: Any) -> ChineseEnglish:
    data = ChineseEnglish(**arguments)
    data.prepare_data()
    data.setup("fit")
    return data


def source_symbols(data: ChineseEnglish) -> tuple[str, ...]:
    assert isinstance(data.facts, TranslationFacts)
    return data.facts.source.symbols


def everything(root: Path, **options: Any) -> ChineseEnglish:
    return loaded(root=str(root), fold="all", test_size=0, min_freq=1, **options)


def test_fabricated_set(root: Path) -> None:
    data = loaded(**ChineseEnglish.fabricate(root))
    data.setup("test")
    assert ChineseEnglish.batch_type() is SentencePairs
    assert {name: len(source) for name, source in data.splits.items()} == {"train": 136, "val": 11, "test": 13}
    assert isinstance(data.facts, TranslationFacts)
    assert (data.facts.source.language, data.facts.target.language) == ("zh", "en")
    assert (data.facts.source.level, data.facts.target.level) == ("char", "word")
    assert data.facts.source.symbols[4] == "这"
    batch = data.splits["test"].__getitems__([0])
    assert all(len(character) == 1 for character in texts_of(batch.words)[0].split(" "))
    assert texts_of(batch.references)[0].startswith("The ")


def test_english_may_be_the_source(root: Path) -> None:
    facts = loaded(
        **{**ChineseEnglish.fabricate(root), "target_level": "char", "source_level": "word"}, source="en"
    ).facts
    assert isinstance(facts, TranslationFacts)
    assert (facts.source.language, facts.target.language) == ("en", "zh")
    assert (facts.source.symbols[4], facts.target.symbols[4]) == ("the", "这")


def test_another_language_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="source is 'fr'; it must be en or zh"):
        loaded(**ChineseEnglish.fabricate(root), source="fr")


def test_characters(root: Path) -> None:
    symbols = source_symbols(everything(write(root, SENTENCES), source_level="char"))
    assert symbols[:4] == SPECIALS
    assert {"我", "漢", "3.5", "abc", "，", "！", "？", "。"} <= set(symbols)
    assert {" ", "", ",", "!", "?", "３", "A", "北京"}.isdisjoint(symbols)


def test_words(root: Path) -> None:
    pytest.importorskip("jieba")
    symbols = source_symbols(everything(write(root, SENTENCES)))
    assert {"我们", "北京", "这里"} <= set(symbols)
    assert {" ", "", "北"}.isdisjoint(symbols)


def test_simplified_characters(root: Path) -> None:
    pytest.importorskip("opencc")
    data = everything(write(root, SENTENCES), source_level="char", simplified=True)
    assert {"汉", "说", "们"} <= set(source_symbols(data))
    assert {"漢", "說", "們"}.isdisjoint(source_symbols(data))
    assert isinstance(data.facts, TranslationFacts)
    assert (data.facts.source.simplified, data.facts.target.simplified) == (True, False)
    data.inputs = ["漢語。"]
    data.setup("predict")
    assert texts_of(data.splits["predict"].__getitems__([0]).words) == ["汉 语 。"]


def test_byte_pairs(root: Path) -> None:
    pytest.importorskip("tokenizers")
    data = everything(write(root, SENTENCES, copies=5), source_level="bpe", bpe_size=120)
    assert any(len(symbol.strip("\u2581")) > 1 for symbol in source_symbols(data)[4:])


def test_both_ways_of_writing_a_sentence_are_one_where_simplified(root: Path) -> None:
    """They are then one sentence, of which training and the test must not have one each."""
    pytest.importorskip("opencc")
    chinese = [sentence for number in range(40) for sentence in (f"漢語{number}。", f"汉语{number}。")]
    data = ChineseEnglish(
        root=str(write(root, chinese)), source_level="char", simplified=True, val_size=10, test_size=20
    )
    split = data._corpus.split
    assert all(split[2 * number] == split[2 * number + 1] for number in range(40))
    mixed = ChineseEnglish(root=str(root), source_level="char", val_size=10, test_size=20)._corpus.split
    assert any(mixed[2 * number] != mixed[2 * number + 1] for number in range(40))


def test_long_sentences_are_counted_by_characters(root: Path) -> None:
    write(root, [*SENTENCES, "长" * 201, "长" * 200])
    with pytest.warns(UserWarning, match=r"^pairs left out .* max_words 200: 1\..*cmn\.txt, line 5$"):
        everything(root, source_level="char")


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("jieba", {}),
        ("opencc", {"source_level": "char", "simplified": True}),
        ("tokenizers", {"source_level": "bpe"}),
        ("tokenizers", {"source_level": "char", "target_level": "bpe"}),
    ],
)
def test_a_missing_library(module: str, options: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"{module}: pip install 'leyden\[translation\]'"):
        everything(write(root, SENTENCES), **options)


def test_without_the_file_the_error_says_how_to_get_it(root: Path) -> None:
    data = ChineseEnglish(root=str(root))
    with pytest.raises(NoSourceError) as caught:
        data.prepare_data()  # it cannot be fetched
    assert str(root / FILE) in str(caught.value)
    assert ADDRESS in str(caught.value)
    assert "by hand" in str(caught.value)
    assert not root.exists()


def test_a_bad_line_is_named(root: Path) -> None:
    write(root, [*SENTENCES, ""])
    with pytest.raises(DataError, match=r"cmn\.txt, line 5: its second sentence is empty"):
        everything(root, source_level="char")
