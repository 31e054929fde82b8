"""How sentences become tokens: normalising, words, characters, byte pairs, vocabularies; sentences of a paragraph."""

import importlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from leyden.batches import CHINESE, SPACE, SPECIALS, Side
from leyden.errors import UsageError

_SPACES = re.compile(r"[\s\u200b]+")  # U+202F and U+00A0 are \s, too
_BLANK = re.compile(r"[\s\u200b\u00ad\ufeff]*")
_UNSEEN = {0x00AD: None, 0xFEFF: None}  # soft hyphen, byte order mark: may stand within a word
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff"
# punctuation is no part of a word; between two digits a point or a comma is part of a number
_PUNCTUATION = re.compile(r'([!?;"()\[\]{}«»“”„…¿¡。，、！？：；（）《》「」『』]|(?<!\d)[.,:]|[.,:](?!\d))')
_CHINESE_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF10, 0xFF5B) if chr(code).isalnum()} | {ord("﹐"): "，"}
_IN_NUMBER = re.compile(r"(?<=\d)(?:，(?=\d{3}(?!\d))|：(?=\d))")  # 10，000 and 2：30
_FOR_CHINESE = str.maketrans(",!?;:", "，！？；：")
_NOT_IN_NUMBER = re.compile(r"(?<!\d)[,:]|[,:](?!\d)|[!?;]")


def required(module: str, package: str, what: str) -> Any:
    """An optional library. Raises UsageError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{what} needs the package {package}: pip install 'leyden[translation]'") from error


def normalise(texts: Sequence[str], language: str, lower: bool, simplified: bool) -> list[str]:
    """Sentences with single spaces between words and punctuation, small letters if `lower`.

    All kinds of spaces become one, and what is not seen, such as a soft hyphen, is removed. A punctuation mark stands
    alone, except for a point or comma within a number. Chinese loses the spaces between its characters and has its own
    punctuation marks; with `simplified`, which needs the package opencc, all its characters are simplified ones.

    Source: Dive into Deep Learning, 10.5.
    """
    if language == CHINESE and simplified:
        texts = _simplified(texts)
    texts = [text if text.isascii() else text.translate(_UNSEEN) for text in texts]
    if lower:
        texts = [text.lower() for text in texts]
    if language == CHINESE:
        return [_normalise_chinese(text) for text in texts]
    return [_SPACES.sub(" ", _PUNCTUATION.sub(r" \1 ", text)).strip() for text in texts]


def _normalise_chinese(text: str) -> str:
    text = _IN_NUMBER.sub(lambda found: {"，": ",", "：": ":"}[found[0]], text.translate(_HALF_WIDTH))
    text = _NOT_IN_NUMBER.sub(lambda found: found[0].translate(_FOR_CHINESE), text)
    text = _SPACES.sub(" ", _PUNCTUATION.sub(r" \1 ", text)).strip()
    return re.sub(rf"(?<=[{_CJK}]) (?=[{_CJK}])", "", text)


def _simplified(texts: Sequence[str]) -> list[str]:
    opencc = required("opencc", "opencc", "simplified Chinese (simplified: true)")
    converted = opencc.OpenCC("t2s").convert("\n".join(text.replace("\n", " ") for text in texts))
    return str(converted).split("\n") if texts else []


class Tokeniser:
    """Makes tokens of the sentences of one language.

    Args:
        side: language, level and, for tokens as numbers, the vocabulary.

    Raises:
        UsageError: where a level needs a library that is not installed.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        # a special symbol that stands in a text is a word like others, which the vocabulary does not have
        self.numbers = {symbol: number for number, symbol in enumerate(side.symbols) if number >= len(SPECIALS)}
        self.bpe = _byte_pairs(side) if side.level == "bpe" and side.symbols else None

    def normalise(self, texts: Sequence[str]) -> list[str]:
        """Sentences as `split` takes them."""
        return normalise(texts, self.side.language, self.side.lower, self.side.simplified)

    def split(self, sentences: Sequence[str]) -> list[list[str]]:
        """Normalised sentences as their tokens, in writing."""
        if self.bpe is not None:
            encoded = self.bpe.encode_batch(list(sentences))
            return [_written(sentence, found) for sentence, found in zip(sentences, encoded, strict=True)]
        if self.side.level == "char":
            return [_characters(sentence, self.side.language) for sentence in sentences]
        if self.side.language == CHINESE:
            return _chinese_words(sentences)
        return [sentence.split(" ") if sentence else [] for sentence in sentences]

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Normalised sentences as tokens; 0 for what the vocabulary does not have."""
        if self.bpe is not None:
            return [found.ids for found in self.bpe.encode_batch(list(sentences))]
        get = self.numbers.get
        return [[get(symbol, 0) for symbol in symbols] for symbols in self.split(sentences)]


def learn(side: Side, sentences: Sequence[str], min_freq: int, bpe_size: int) -> Side:
    """The side with the vocabulary of normalised training sentences.

    Words and characters that occur less than min_freq times are left out; the vocabulary of byte pairs has bpe_size
    symbols at most.
    """
    if side.level != "bpe":
        counts = Counter(symbol for symbols in Tokeniser(side).split(sentences) for symbol in symbols)
        frequent = [symbol for symbol, count in counts.items() if count >= min_freq and symbol not in SPECIALS]
        ordered = sorted(frequent, key=lambda symbol: (-counts[symbol], symbol))
        return replace(side, symbols=(*SPECIALS, *ordered))
    tokenizers = required("tokenizers", "tokenizers", "level bpe")
    model = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=SPECIALS[0]))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=bpe_size,
        min_frequency=min_freq,
        limit_alphabet=bpe_size - len(SPECIALS),  # or else all characters there are, however many
        special_tokens=list(SPECIALS),
        show_progress=False,
    )
    model.train_from_iterator(sentences, trainer)
    return _trained(side, model)


def _trained(side: Side, model: Any) -> Side:
    state = json.loads(model.to_str())["model"]
    symbols = tuple(sorted(state["vocab"], key=state["vocab"].get))
    merges = tuple(pair if isinstance(pair, str) else " ".join(pair) for pair in state["merges"])
    return replace(side, symbols=symbols, merges=merges)


def _byte_pairs(side: Side) -> Any:
    tokenizers = required("tokenizers", "tokenizers", "level bpe")
    vocabulary = {symbol: number for number, symbol in enumerate(side.symbols)}
    merges = [tuple(pair.split(" ")) for pair in side.merges]
    model = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, unk_token=SPECIALS[0]))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    return model


def _written(sentence: str, found: Any) -> list[str]:
    """Pieces as they stand in the sentence, also those that the vocabulary does not have."""
    if 0 not in found.ids:
        return list(found.tokens)
    pieces = zip(found.ids, found.tokens, found.offsets, strict=True)
    return [piece if token else sentence[begin:end] for token, piece, (begin, end) in pieces]


def _characters(sentence: str, language: str) -> list[str]:
    """Chinese characters, and what stands between them as words; of other languages each character, and spaces."""
    return _CHINESE_WORD.findall(sentence) if language == CHINESE else list(sentence.replace(" ", SPACE))


def _chinese_words(sentences: Sequence[str]) -> list[list[str]]:
    jieba = required("jieba", "jieba", "Chinese words (level word)")
    jieba.setLogLevel(60)  # it says on standard error that it loads its dictionary
    return [[word for word in jieba.lcut(sentence) if word.strip()] for sentence in sentences]


def is_blank(text: str) -> bool:
    """Whether nothing is left of a text once it is normalised."""
    return _BLANK.fullmatch(text) is not None


def sentences_of(paragraph: str, language: str) -> list[str]:
    """The sentences of a paragraph, none empty."""
    import sentencex

    return [sentence.strip() for sentence in sentencex.segment(language, paragraph) if not is_blank(sentence)]


def word_count(sentence: str, language: str) -> int:
    """How long a sentence is, in words, or in Chinese characters."""
    return len(sentence) if language == CHINESE else len(sentence.split())


def pieces_of(sentence: str, language: str, longest: int) -> list[str]:
    """The sentence; one of more than `longest` words, or Chinese characters, is cut in pieces of so many."""
    if word_count(sentence, language) <= longest:
        return [sentence]
    words = list(sentence) if language == CHINESE else sentence.split()
    separator = "" if language == CHINESE else " "
    return [separator.join(words[start : start + longest]) for start in range(0, len(words), longest)]
