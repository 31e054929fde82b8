"""Detokenising: what was put between words and marks goes, in each language."""

import pytest

from leyden.batches import SPECIALS, Side
from leyden_plugins.translation.text import detokenise, label, words_of


@pytest.mark.parametrize(
    ("language", "words", "text"),
    [
        ("en", "he is calm .", "he is calm."),
        ("en", "well , is he ? yes !", "well, is he? yes!"),
        ("en", '" go , " he said ( twice ) .', '"go," he said (twice).'),
        ("en", 'he said " go " .', 'he said "go".'),
        ("en", '( " go " ) , " come " ?', '("go"), "come"?'),
        ("es", "« va » , ¿ no ?", "«va», ¿no?"),
        ("fr", 'dit-il " va " . " va " !', 'dit-il "va". "va" !'),
        ("fr", "ça va ? oui , bien sûr !", "ça va ? oui, bien sûr !"),
        ("fr", "« va » : 3,5 .", "« va » : 3,5."),
        ("zh", "你 好 ， 世 界 。", "你好，世界。"),
        ("zh", "tom 说 ： 你 好 world 3 次 。", "tom说：你好world 3次。"),
        ("en", "", ""),
    ],
)
def test_sentences_as_people_write_them(language: str, words: str, text: str) -> None:
    assert detokenise(words.split(), language) == text


def test_pieces_and_characters_become_words() -> None:
    assert words_of(["▁il", "▁est", "▁cal", "me", "▁."], Side("fr", "bpe", SPECIALS)) == ["il", "est", "calme", "."]
    assert words_of(list("il▁va▁!"), Side("fr", "char", SPECIALS)) == ["il", "va", "!"]
    assert words_of(["你", "好"], Side("zh", "char", SPECIALS)) == ["你", "好"]
    assert words_of(["il", "va"], Side("fr", "word", SPECIALS)) == ["il", "va"]


def test_labels_tell_pieces_from_beginnings_of_words() -> None:
    assert [label(symbol, Side("fr", "bpe", SPECIALS)) for symbol in ("▁cal", "me", "▁.")] == ["cal", "-me", "."]
    assert label("calme", Side("fr", "word", SPECIALS)) == "calme"
