"""Tokens of a translation as people write them."""

import re
from collections.abc import Sequence

from leyden.batches import CHINESE, SPACE, Side

_CLOSING = re.compile(r" ([.,!?;:…”»)\]}])")
_CLOSING_FRENCH = re.compile(r" ([.,…”)\]}])")  # French has a space before the others
_OPENING = re.compile(r"([(\[{“„«¿¡]) ")
_OPENING_FRENCH = re.compile(r"([(\[{“„]) ")
_QUOTED = re.compile(r'(^|[ (\[{])" (.*?) "(?=[ .,!?;:…)\]}]|$)')
_BESIDE_CHINESE = re.compile(r" ?([\u3400-\u9fff\uf900-\ufaff。，！？：；、（）《》「」“”]) ?")


def words_of(symbols: Sequence[str], side: Side) -> list[str]:
    """Symbols as words with punctuation marks of their own; in Chinese as characters and words, as they are told."""
    if side.level == "bpe" or (side.level == "char" and side.language != CHINESE):
        symbols = "".join(symbols).replace(SPACE, " ").split()
    return list(symbols)


def label(symbol: str, side: Side) -> str:
    """A symbol beside a picture; what goes on with a word has a hyphen before it."""
    if side.level != "bpe":
        return symbol
    return symbol[1:] if symbol.startswith(SPACE) else f"-{symbol}"


def detokenise(words: Sequence[str], language: str) -> str:
    """A sentence without the spaces that were put before punctuation marks; Chinese without any between its signs."""
    text = " ".join(words)
    if language == CHINESE:
        return _BESIDE_CHINESE.sub(r"\1", text)
    opening, closing = (_OPENING_FRENCH, _CLOSING_FRENCH) if language == "fr" else (_OPENING, _CLOSING)
    return _QUOTED.sub(r'\1"\2"', opening.sub(r"\1", closing.sub(r"\1", text)))
