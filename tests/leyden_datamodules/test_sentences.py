"""How sentences become tokens: normalising, levels, vocabularies, and the sentences of a paragraph."""

import re
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyden.batches import SPECIALS, Side
from leyden.errors import UsageError
from leyden_datamodules._sentences import (
    SPACE,
    Tokeniser,
    is_blank,
    learn,
    normalise,
    pieces_of,
    sentences_of,
)

WORDS = Side("en", "word", ())
CHARACTERS = Side("en", "char", ())
BYTE_PAIRS = Side("en", "bpe", ())
CHINESE_CHARACTERS = Side("zh", "char", ())
CHINESE_WORDS = Side("zh", "word", ())
TEXTS = ["the grey house", "the old house", "the house of the rat", "a rat"]
latin = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Z"], max_codepoint=0x24F))


def normalised(text: str, language: str = "en", lower: bool = True, simplified: bool = False) -> str:
    [found] = normalise([text], language, lower, simplified)
    return found


# normalising


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ça\u202falors\u00a0!", "ça alors !"),
        ("  Go.\tNow\u3000! ", "go . now !"),
        ("Who?Me!", "who ? me !"),
        ("3.5 + 1,000 at 10:30.", "3.5 + 1,000 at 10:30 ."),
        ("In 1898, he (said) «oui»…", "in 1898 , he ( said ) « oui » …"),
        ("It's l'eau, well-known.", "it's l'eau , well-known ."),
        ("wait...", "wait . . ."),
        ("no,3 or x:5", "no , 3 or x : 5"),
        ("zero\u200bwidth", "zero width"),
        ("co\u00adoperate", "cooperate"),
        ("\ufeffword", "word"),
        ("", ""),
    ],
)
def test_words_and_punctuation_have_one_space_between_them(text: str, expected: str) -> None:
    assert normalised(text, "fr") == expected


def test_letters_may_stay_large() -> None:
    assert normalised("Go, Tom!", lower=False) == "Go , Tom !"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ＡＢＣ有３个。", "abc有3个 。"),
        ("好,是吗?对!", "好 ， 是吗 ？ 对 ！"),
        ("我 们 走", "我们走"),
        ("我用 Windows 95 吧", "我用 windows 95 吧"),
        ("失业率为3.5％。", "失业率为3.5％ 。"),
        ("他有１０，０００元，2：30到。", "他有10,000元 ， 2:30到 。"),
        ("10,000,好", "10,000 ， 好"),
        ("請\u200b\u200b借我", "請借我"),
    ],
)
def test_chinese_has_its_own_punctuation_and_no_spaces_between_characters(text: str, expected: str) -> None:
    assert normalised(text, "zh") == expected


def test_chinese_may_be_simplified() -> None:
    pytest.importorskip("opencc")
    assert normalise(["我們說漢語。", "", "他\n們"], "zh", True, True) == ["我们说汉语 。", "", "他们"]
    assert normalise(["我們說漢語。"], "zh", True, False) == ["我們說漢語 。"]
    assert normalise([], "zh", True, True) == []
    assert normalise(["漢"], "ja", True, True) == ["漢"], "only Chinese has simplified characters"


@given(latin)
def test_normalising_keeps_all_that_is_no_space_in_its_order(text: str) -> None:
    found = normalised(text, lower=False)
    assert "".join(found.split()) == "".join(text.replace("\u00ad", "").split())
    assert found == " ".join(found.split()), "single spaces, none at the ends"


@given(latin)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalised(text)
    assert normalised(once) == once


@given(latin)
def test_punctuation_is_no_part_of_a_word(text: str) -> None:
    words = normalised(text).split()
    assert all(len(word) == 1 for word in words if re.search(r'[!?;"()\[\]«»]', word))


@given(st.text(st.sampled_from(" \t\n\u00a0\u202f\u200b\u00ad\ufeffa"), max_size=4))
def test_blank_is_what_nothing_is_left_of(text: str) -> None:
    assert is_blank(text) == (normalised(text) == "")


# tokens


def test_words() -> None:
    side = learn(WORDS, TEXTS, 1, 0)
    assert Tokeniser(side).split(["the xylophone house", ""]) == [["the", "xylophone", "house"], []]
    tokens = Tokeniser(side).encode(["the xylophone house", ""])
    assert tokens == [[side.symbols.index("the"), 0, side.symbols.index("house")], []]


def test_characters() -> None:
    side = learn(CHARACTERS, TEXTS, 1, 0)
    assert Tokeniser(side).split(["a rat"]) == [["a", SPACE, "r", "a", "t"]]
    [tokens] = Tokeniser(side).encode(["a rat x"])
    assert [side.symbols[token] for token in tokens] == ["a", SPACE, "r", "a", "t", SPACE, "<unk>"]


def test_chinese_characters_leave_numbers_and_foreign_words_whole() -> None:
    [symbols] = Tokeniser(CHINESE_CHARACTERS).split([normalised("我用Windows 95，3.5个。", "zh")])
    assert symbols == ["我", "用", "windows", "95", "，", "3.5", "个", "。"]


def test_chinese_words() -> None:
    jieba = pytest.importorskip("jieba")
    sentence = "我来到北京清华大学 。"
    [symbols] = Tokeniser(CHINESE_WORDS).split([sentence])
    assert symbols == ["我", "来到", "北京", "清华大学", "。"]
    assert symbols == [word for word in jieba.cut(sentence) if word != " "]


def test_special_symbols_in_a_text_are_unknown_words() -> None:
    for level in (WORDS, BYTE_PAIRS):
        side = learn(level, ["a <eos> house <eos>", "<pad> <eos> <unk> a house"], 1, 20)
        [tokens] = Tokeniser(side).encode(["<eos> <pad> <bos> a"])
        assert not {1, 2, 3} & set(tokens), f"{level.level}: a sentence would end within"
        assert side.symbols[:4] == SPECIALS
        assert len(set(side.symbols)) == len(side.symbols)


# vocabularies


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=6).map(" ".join), max_size=8), st.integers(1, 4))
def test_the_vocabulary_is_of_what_is_frequent_most_frequent_first(sentences: list[str], min_freq: int) -> None:
    symbols = learn(WORDS, sentences, min_freq, 0).symbols
    counts = Counter(word for sentence in sentences for word in sentence.split())
    assert symbols[:4] == ("<unk>", "<pad>", "<bos>", "<eos>")
    assert set(symbols[4:]) == {word for word in counts if counts[word] >= min_freq}
    assert list(symbols[4:]) == sorted(symbols[4:], key=lambda word: (-counts[word], word))


def test_byte_pairs_are_learnt_by_hand_the_same() -> None:
    """Sennrich et al., 2016, algorithm 1: the most frequent pair is merged first."""
    pytest.importorskip("tokenizers")
    side = learn(BYTE_PAIRS, ["aab aab aab ab ab", "aab"], 1, 9)
    # aab occurs 4 times and ab twice, each behind a space; so (a, b) 6 times, (SPACE, a) 4, (a, ab) 4, (SPACE, ab) 2
    assert side.symbols[:8] == (*SPECIALS, "a", "b", SPACE, "ab")
    assert side.merges[0] == "a b"
    assert len(side.symbols) == 9
    assert len(side.merges) == 2


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text("abcde ", min_size=1, max_size=12).map(str.split).map(" ".join), min_size=1, max_size=6))
def test_byte_pairs_joined_give_the_sentence(sentences: list[str]) -> None:
    pytest.importorskip("tokenizers")
    side = learn(BYTE_PAIRS, ["abcde edcba", *TEXTS], 1, 26)
    tokeniser = Tokeniser(side)
    pieces, tokens = tokeniser.split(sentences), tokeniser.encode(sentences)
    assert ["".join(each).replace(SPACE, " ").removeprefix(" ") for each in pieces] == sentences
    assert [[side.symbols[token] for token in each] for each in tokens] == pieces


def test_byte_pairs_of_chinese_joined_give_the_sentence() -> None:
    pytest.importorskip("tokenizers")
    sentences = ["我们 ， 他们 ！", "我们走", "他们走"]
    side = learn(Side("zh", "bpe", ()), sentences, 1, 40)
    [pieces, *_] = Tokeniser(side).split(sentences)
    assert "".join(pieces).replace(SPACE, " ").strip() == sentences[0]
    assert any(len(symbol.strip(SPACE)) > 1 for symbol in side.symbols[4:])


def test_unknown_characters_stand_among_byte_pairs_as_they_are_in_the_text() -> None:
    pytest.importorskip("tokenizers")
    tokeniser = Tokeniser(learn(BYTE_PAIRS, TEXTS, 1, 20))
    [pieces], [tokens] = tokeniser.split(["the †‡ rat é"]), tokeniser.encode(["the †‡ rat é"])
    assert "".join(pieces).replace(SPACE, " ").strip() == "the †‡ rat é"
    assert [piece for piece, token in zip(pieces, tokens, strict=True) if token == 0] == ["†", "‡", "é"]


@pytest.mark.parametrize("size", [5, 12, 30])
def test_a_vocabulary_of_byte_pairs_is_no_larger_than_asked_for(size: int) -> None:
    pytest.importorskip("tokenizers")
    side = learn(BYTE_PAIRS, ["abcdefghij klmnopqrst uvwxyz", "a b c the the"], 1, size)
    assert len(side.symbols) <= size
    assert side.symbols[:4] == SPECIALS
    assert SPACE in side.symbols


def test_byte_pairs_are_learnt_the_same_twice() -> None:
    pytest.importorskip("tokenizers")
    sentences = [f"{first}{second} {second}" for first in "abcdefgh" for second in "ijklmnop"]
    assert learn(BYTE_PAIRS, sentences, 1, 40) == learn(BYTE_PAIRS, sentences, 1, 40)


def test_rare_byte_pairs_are_not_merged() -> None:
    pytest.importorskip("tokenizers")
    side = learn(BYTE_PAIRS, ["ab ab ab cd"], 2, 100)
    assert "ab" in side.symbols
    assert "cd" not in side.symbols


# optional libraries


@pytest.mark.parametrize(
    ("module", "side"),
    [
        ("tokenizers", BYTE_PAIRS),
        ("tokenizers", replace(BYTE_PAIRS, symbols=(*SPECIALS, "a"))),
        ("jieba", CHINESE_WORDS),
        ("opencc", replace(CHINESE_CHARACTERS, simplified=True)),
    ],
)
def test_a_missing_library_is_named_with_how_to_install_it(
    module: str, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"needs the package {module}: pip install 'leyden\[translation\]'"):
        learn(side, Tokeniser(side).normalise(["我们 ab"]), 1, 10)


def test_other_levels_need_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tokenizers", "jieba", "opencc"):
        monkeypatch.setitem(sys.modules, module, None)
    for side in (WORDS, CHARACTERS, CHINESE_CHARACTERS):
        assert len(learn(side, Tokeniser(side).normalise(["我们 ab"]), 1, 10).symbols) > 4


# paragraphs


@pytest.mark.parametrize(
    ("language", "paragraph", "expected"),
    [
        ("en", "The river. The house!  A rat", ["The river.", "The house!", "A rat"]),
        ("en", "Mr. Smith has 3.5 boats. OK?", ["Mr. Smith has 3.5 boats.", "OK?"]),
        ("fr", "Oui\u00a0? Non.", ["Oui\u00a0?", "Non."]),
        ("zh", "老河。灰商人！", ["老河。", "灰商人！"]),
        ("xx", "One. Two.", ["One.", "Two."]),
        ("en", "one\n\ntwo", ["one", "two"]),
        ("en", "", []),
        ("en", " \n\u00a0\u200b", []),
    ],
)
def test_the_sentences_of_a_paragraph(language: str, paragraph: str, expected: list[str]) -> None:
    assert sentences_of(paragraph, language) == expected


@given(st.lists(st.sampled_from(["the", "river", "is", "old"]), min_size=1, max_size=30), st.integers(1, 12))
def test_a_long_sentence_is_cut_in_pieces_of_so_many_words(words: list[str], longest: int) -> None:
    pieces = pieces_of(" ".join(words), "en", longest)
    assert [word for piece in pieces for word in piece.split()] == words
    assert all(len(piece.split()) == longest for piece in pieces[:-1])
    assert 1 <= len(pieces[-1].split()) <= longest


def test_a_long_chinese_sentence_is_cut_by_characters() -> None:
    assert pieces_of("我们走到河边", "zh", 4) == ["我们走到", "河边"]
    assert pieces_of("我们走到", "zh", 4) == ["我们走到"]
