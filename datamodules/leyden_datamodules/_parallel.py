"""What the data modules of sentence pairs share: reading, splits by connected groups, vocabularies, and a cache."""

import hashlib
import json
import logging
import os
import random
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Literal, cast
from zipfile import BadZipFile

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from leyden.batches import CHINESE, EOS, SPECIALS, SentencePairs, Side, TranslationFacts
from leyden.data import BatchSource, DataModule, Split, TrainLoader
from leyden.errors import DataError, UsageError
from leyden.folders import replacing
from leyden.folds import Fold
from leyden_datamodules._pairs import EvaluationPairs, PairLoader, Ragged, Sources, TrainPairs
from leyden_datamodules._sentences import Tokeniser, is_blank, learn, pieces_of, sentences_of, word_count
from leyden_datamodules._text import number_of, prompts, read_text, require_size

logger = logging.getLogger("leyden")
Level = Literal["word", "char", "bpe"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
CACHED_FROM = 10_000  # pairs; fewer are tokenised in no time
CACHE_FORMAT = 3  # to be raised when what is stored, or how sentences become tokens, changes
LIBRARIES = ("tokenizers", "jieba", "opencc")


@dataclass
class Pairs:
    """Pairs as they stand in the files. first, second: N sentences each; `where` says of one where it is from."""

    first: list[str]
    second: list[str]
    where: list[str]


class Columns:
    """Reads sentence pairs line by line, and says which lines are bad.

    Args:
        skip: leave bad lines out and count them, instead of stopping.
    """

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.pairs = Pairs([], [], [])
        self.left_out: list[str] = []

    def read(self, path: Path, limit: int | None) -> None:
        """A file with a pair in each line: two sentences with a tab between; further columns are not read.

        Raises DataError naming file and line.
        """
        for number, line in enumerate(lines_of(path), start=1):
            if limit is not None and len(self.pairs.first) >= limit:
                return
            cells = line.split("\t")
            if len(cells) < 2:
                self._refuse(f"{path}, line {number}: has no tab. Expected two sentences with a tab between them.")
            else:
                self.add(cells[0], cells[1], f"{path}, line {number}")

    def add(self, first: str, second: str, where: str) -> None:
        """One pair. Raises DataError where a side is empty."""
        if not is_blank(first) and not is_blank(second):
            self.pairs.first.append(first.strip())
            self.pairs.second.append(second.strip())
            self.pairs.where.append(where)
        else:
            side = "first" if is_blank(first) else "second"
            self._refuse(f"{where}: its {side} sentence is empty. Expected two sentences.")

    def _refuse(self, reason: str) -> None:
        if not self.skip:
            raise DataError(f"{reason} --data.on_error skip leaves such lines out.")
        self.left_out.append(reason)

    def finish(self, place: Path) -> Pairs:
        """All pairs. Raises DataError where there are none."""
        if self.left_out:
            rank_zero_warn(f"lines left out: {len(self.left_out)}. The first: {self.left_out[0]}")
        if not self.pairs.first:
            raise DataError(f"{place}: has no sentence pairs.")
        return self.pairs


def lines_of(path: Path) -> list[str]:
    """The lines of a UTF-8 file. Raises DataError, also where there are none."""
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: is empty. Expected a sentence pair in each line.")
    return text.removesuffix("\n").split("\n")


@dataclass
class Corpus:
    """All pairs as tokens.

    source, target: N rows; each ends with EOS. split: (N,) uint8, 0 train, 1 val, 2 test.
    """

    facts: TranslationFacts
    source: Ragged
    target: Ragged
    split: NDArray[np.uint8]


class ParallelData(DataModule[SentencePairs]):
    """Base of the data modules of sentence pairs.

    Pairs that share a normalised source or target sentence, and those that these share one with, stay in one split:
    nothing that is evaluated on was trained on, in either language. Validation and test have each source sentence once;
    all its translations are its references.

    Training batches have sentences of like lengths and are padded to their longest. With `num_steps` all sentences are
    padded or cut to one length, as in Dive into Deep Learning.

    A subclass says what its languages are and reads the pairs (`read`).

    Args:
        source: the language (ISO 639-1) that is translated; the other one is what it is translated into.
        source_level: what a token of the source is: a `word` (in Chinese by jieba), a `char` (a character), or `bpe`, a
            piece of a word by byte-pair encoding, learnt from the training split (Sennrich et al., "Neural machine
            translation of rare words with subword units", 2016). `bpe` needs the package tokenizers.
        target_level: the same for the target.
        lower: make all letters small.
        simplified: make traditional Chinese characters simplified ones; needs the package opencc.
        min_freq: words and characters that occur less often in the training split are <unk>.
        bpe_size: symbols of a vocabulary of level bpe, at most.
        num_steps: pad or cut all sentences to so many tokens; null makes batches of like lengths.
        max_pairs: read no more than so many pairs, from the beginning; null reads all.
        max_words: pairs with a sentence of more words (in Chinese, characters) are left out, and `predict` cuts such a
            sentence in pieces.
        val_size: source sentences to validate on, or (below 1) their share.
        test_size: the same for the test; 0 leaves nothing to test on.
        on_error: what to do about a line without a tab or with an empty side: `raise`, or `skip` it.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: for a value out of its range, and for a library that is missing.
        DataError: for a file that cannot be used, naming it and the line.
    """

    languages: ClassVar[tuple[str, str]]
    reads_texts = True

    def __init__(
        self,
        source: str | None = None,
        source_level: Level = "word",
        target_level: Level = "word",
        lower: bool = True,
        simplified: bool = False,
        min_freq: int = 2,
        bpe_size: int = 8000,
        num_steps: int | None = None,
        max_pairs: int | None = None,
        max_words: int = 200,
        val_size: int | float = 0.02,
        test_size: int | float = 0.05,
        on_error: Literal["raise", "skip"] = "raise",
        **data_module: Any,
    ) -> None:
        super().__init__(**data_module)
        counts = {"min_freq": min_freq, "num_steps": num_steps, "max_pairs": max_pairs, "max_words": max_words}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise UsageError(f"{name} is {count}; it must be at least 1.")
        if bpe_size <= len(SPECIALS):
            raise UsageError(f"bpe_size is {bpe_size}; it must be more than the {len(SPECIALS)} special symbols.")
        for name, size in {"val_size": val_size, "test_size": test_size}.items():
            require_size(name, size, "a number of source sentences, or a share below 1")
        if val_size == 0:
            raise UsageError("val_size is 0; to train on everything that is not tested on, say --data.fold all.")
        self.source = source
        self.levels = {"source": source_level, "target": target_level}
        self.lower = lower
        self.simplified = simplified
        self.min_freq = min_freq
        self.bpe_size = bpe_size
        self.num_steps = num_steps
        self.max_pairs = max_pairs
        self.max_words = max_words
        self.val_size = val_size
        self.test_size = test_size
        self.on_error = on_error

    @classmethod
    def fabricate_inputs(cls, folder: Path) -> list[str]:
        """Five texts: a sentence, one of unknown words, a paragraph, nothing, a number."""
        return ["the grey house .", "xylophone \u2020", "The river. The house!", "", "3.5"]

    @abstractmethod
    def read(self, columns: Columns) -> Path:
        """Give all pairs to `columns`, in the order of `languages`, and say which file or folder they are from."""

    def pair(self) -> tuple[str, str]:
        """The languages of the columns."""
        return self.languages

    def direction(self) -> tuple[str, str]:
        """Source and target language. Raises UsageError for a source that is neither language."""
        first, second = self.pair()
        source = self.source or first
        if source not in (first, second):
            raise UsageError(f"source is {source!r}; it must be {first} or {second}.")
        return (first, second) if source == first else (second, first)

    def prepare_data(self) -> None:
        """Lightning's hook: one process of a node makes the tokens that are to be cached, the others wait for them."""
        super().prepare_data()
        if (self.trainer is None or not self.trainer.predicting) and len(self._pairs.first) >= CACHED_FROM:
            self._corpus  # noqa: B018  # kept, and stored

    def describe(self) -> TranslationFacts:
        """Languages and vocabularies."""
        return self._corpus.facts

    def load(self, split: Split) -> BatchSource:
        """A split. Raises DataError where it has nothing."""
        corpus = self._corpus
        rows = torch.from_numpy(np.flatnonzero(corpus.split == SPLITS.index(split)))
        if not len(rows):
            if split == "test" and self.test_size == 0:
                raise UsageError("there is nothing to test on: test_size is 0.")
            raise self._nothing_for(split, len(corpus.source))
        if split == "train":
            self._require_ends(corpus, rows)
            return TrainPairs(corpus.source.select(rows), corpus.target.select(rows), self.num_steps)
        return self._evaluation(corpus, rows)

    def load_fold(self, split: Literal["train", "val"], fold: Fold) -> BatchSource:
        """The same: the cut minds the fold, with which the vocabularies change."""
        return self.load(split)

    def train_dataloader(self) -> TrainLoader:
        """Batches of like lengths; with num_steps, of any."""
        bucketed = self.num_steps is None and self.batch_size is not None
        loader = self._loader("train", PairLoader if bucketed else TrainLoader, shuffle=True)
        assert isinstance(loader, TrainLoader)
        loader.trainer = self.trainer
        return loader

    def load_inputs(self, inputs: Sequence[str]) -> Sources:
        """Texts to translate: as they stand, the lines of a file, or with `-` those of standard input.

        A text may be a paragraph of several sentences, or empty. One warning tells of sentences that were cut. Raises
        UsageError for a text that is no Unicode, which an argument of other bytes becomes.
        """
        facts = cast(TranslationFacts, self.facts or self.describe())
        tokeniser = Tokeniser(facts.source)
        texts = [_unicode(place, text) for place, text in prompts(inputs, self.trainer)]
        language = facts.source.language
        whole = [sentences_of(text, language) for text in texts]
        split = [[piece for each in text for piece in pieces_of(each, language, self.max_words)] for text in whole]
        if cut := sum(word_count(each, language) > self.max_words for text in whole for each in text):
            rank_zero_warn(f"sentences of more than max_words {self.max_words}, translated in pieces: {cut}")
        flat = tokeniser.normalise([sentence for sentences in split for sentence in sentences])
        tokens, symbols = iter(tokeniser.encode(flat)), iter(tokeniser.split(flat))
        numbers = [[next(tokens) for _ in sentences] for sentences in split]
        words = [" ".join(word for _ in sentences for word in next(symbols)) for sentences in split]
        if facts.num_steps is not None:
            room = facts.num_steps - 1
            if any(len(each) > room for sentences in numbers for each in sentences):
                rank_zero_warn(
                    f"the network was trained on sentences cut to num_steps {facts.num_steps}; longer ones are "
                    "translated as they are, and may go wrong."
                )
        return Sources(texts, numbers, words)

    def _require_ends(self, corpus: Corpus, rows: Tensor) -> None:
        """Sentences that are cut to num_steps lose their end, and where none has one, no translation would ever end."""
        if self.num_steps is None:
            return
        ends = [side.lengths[rows] <= self.num_steps for side in (corpus.source, corpus.target)]
        cut = len(rows) - int((ends[0] & ends[1]).sum())
        if not ends[1].any():
            shortest = int(corpus.target.lengths[rows].min())
            raise UsageError(
                f"num_steps is {self.num_steps}, which cuts the end off every target sentence of the training split: "
                f"the shortest has {shortest} tokens, its end included. Use a greater --data.num_steps, or null."
            )
        if cut:
            rank_zero_warn(f"of {len(rows)} training pairs {cut} are cut to num_steps {self.num_steps} tokens.")

    def _nothing_for(self, split: Split, pairs: int) -> DataError:
        return DataError(
            f"{self.path()}: its {pairs} pairs leave nothing for {split} (val_size {self.val_size}, test_size "
            f"{self.test_size}; pairs that share a sentence stay together)."
        )

    @cached_property
    def _pairs(self) -> Pairs:
        """All pairs, with the source first, without those that are too long."""
        columns = Columns(self.on_error == "skip")
        pairs = columns.finish(self.read(columns))
        if self.direction() != self.pair():
            pairs = Pairs(pairs.second, pairs.first, pairs.where)
        languages = self.direction()
        long = [
            place
            for place, both in enumerate(zip(pairs.first, pairs.second, strict=True))
            if any(word_count(text, language) > self.max_words for text, language in zip(both, languages, strict=True))
        ]
        if not long:
            return pairs
        rank_zero_warn(
            f"pairs left out for a sentence of more than max_words {self.max_words}: {len(long)}. The first: "
            f"{pairs.where[long[0]]}"
        )
        if len(long) == len(pairs.first):
            raise UsageError(f"max_words is {self.max_words}, and every pair has a longer sentence.")
        keep = sorted(set(range(len(pairs.first))) - set(long))
        return Pairs(*([column[place] for place in keep] for column in (pairs.first, pairs.second, pairs.where)))

    def _side(self, number: int) -> Side:
        language = self.direction()[number]
        level = self.levels["target" if number else "source"]
        return Side(language, level, (), (), self.lower, self.simplified and language == CHINESE)

    @cached_property
    def _corpus(self) -> Corpus:
        pairs = self._pairs
        path = self._cache_path(pairs) if len(pairs.first) >= CACHED_FROM else None
        if path is not None and (stored := _load_corpus(path)) is not None:
            return replace(stored, facts=replace(stored.facts, num_steps=self.num_steps))
        texts = [
            Tokeniser(self._side(number)).normalise(side) for number, side in enumerate((pairs.first, pairs.second))
        ]
        split = self._split(*texts)
        if split.all():
            raise self._nothing_for("train", len(split))
        sides, tokens = [], []
        for number, sentences in enumerate(texts):
            training = [sentences[place] for place in np.flatnonzero(split == 0)]
            side = learn(self._side(number), training, self.min_freq, self.bpe_size)
            self._require_vocabulary(side)
            sides.append(side)
            tokens.append(Ragged.of([(*row, EOS) for row in Tokeniser(side).encode(sentences)]))
        facts = TranslationFacts(sides[0], sides[1], self.num_steps)
        corpus = Corpus(facts, tokens[0], tokens[1], split)
        if path is not None:
            _save_corpus(path, corpus)
        return corpus

    def _require_vocabulary(self, side: Side) -> None:
        if len(side.symbols) > len(SPECIALS):
            return
        raise UsageError(
            f"the vocabulary of {side.language} has nothing but {', '.join(SPECIALS)}: no {side.level} occurs min_freq "
            f"{self.min_freq} times in the training split. Use a smaller --data.min_freq, or more data."
        )

    def _split(self, sources: Sequence[str], targets: Sequence[str]) -> NDArray[np.uint8]:
        """Of each pair its split, (N,) uint8."""
        source_ids, target_ids = (_numbered(texts) for texts in (sources, targets))
        groups = connected_groups(source_ids, target_ids)
        count = int(source_ids.max()) + 1
        order = np.random.default_rng(self.seed).permutation(int(groups.max()) + 1)
        in_group = _sources_of_groups(source_ids, groups)[order]
        before = np.cumsum(in_group) - in_group  # sources in the groups before
        test, val = (number_of(size, count) for size in (self.test_size, self.val_size))
        if test + val >= count and self.fold is None:
            raise DataError(
                f"{self.path()}: its {count} different source sentences are too few for val_size {self.val_size} and "
                f"test_size {self.test_size}."
            )
        of_group = np.zeros(len(order), np.uint8)
        of_group[order[before < test]] = 2
        if self.fold is None:
            tested = in_group[before < test].sum()  # the last group may have had more than were wanted
            of_group[order[(before >= tested) & (before < tested + val)]] = 1
            return of_group[groups]
        split = of_group[groups]
        pool = np.flatnonzero(split == 0)
        _, held_out = self.fold.cut(len(pool), self.seed, None, torch.from_numpy(groups[pool]))
        split[pool[held_out.numpy()]] = 1
        return split

    def _evaluation(self, corpus: Corpus, rows: Tensor) -> EvaluationPairs:
        """Each source sentence once, short ones first, with all its translations."""
        pairs = self._pairs
        tokeniser = Tokeniser(corpus.facts.source)
        places = rows.tolist()
        sentences = tokeniser.normalise([pairs.first[place] for place in places])
        references: dict[str, list[str]] = {}
        first: dict[str, int] = {}
        for place, sentence in zip(places, sentences, strict=True):
            first.setdefault(sentence, place)
            known = references.setdefault(sentence, [])
            if (translation := " ".join(pairs.second[place].split())) not in known:
                known.append(translation)
        lengths = corpus.source.lengths
        ordered = sorted(references, key=lambda sentence: int(lengths[first[sentence]]))
        chosen = torch.tensor([first[sentence] for sentence in ordered])
        words = [" ".join(symbols) for symbols in tokeniser.split(ordered)]
        return EvaluationPairs(
            corpus.source.select(chosen),
            corpus.target.select(chosen),
            self.num_steps,
            words,
            ["\n".join(references[sentence]) for sentence in ordered],
        )

    def _cache_path(self, pairs: Pairs) -> Path:
        """Where the tokens of these pairs, made with these settings by these libraries, are kept."""
        sides = [asdict(self._side(number)) for number in (0, 1)]
        sizes = [self.min_freq, self.bpe_size, self.val_size, self.test_size, self.seed, str(self.fold)]
        settings = json.dumps([CACHE_FORMAT, sides, sizes, {name: _version(name) for name in LIBRARIES}])
        digest = hashlib.sha256(settings.encode())
        for texts in (pairs.first, pairs.second):
            digest.update("\n".join(texts).encode())
            digest.update(b"\0")
        return cache_folder() / "sentence-pairs" / f"{digest.hexdigest()[:32]}.npz"


def cache_folder() -> Path:
    """$LEYDEN_CACHE, else the user's folder for what can be made again."""
    import pooch

    return Path(os.environ.get("LEYDEN_CACHE") or pooch.os_cache("leyden"))


def _load_corpus(path: Path) -> Corpus | None:
    """What is stored; None where that is nothing, or is damaged."""
    damaged = (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        BadZipFile,
        RuntimeError,
    )  # RuntimeError: "encrypted"
    with suppress(*damaged), np.load(path) as stored:
        facts = TranslationFacts.from_primitives(json.loads(str(stored["facts"])))
        source, target = (Ragged(stored[f"{name}_tokens"], stored[f"{name}_starts"]) for name in ("source", "target"))
        corpus = Corpus(facts, source, target, stored["split"])
        logger.info("tokens are read from %s", path)
        return corpus
    return None


def _save_corpus(path: Path, corpus: Corpus) -> None:
    """A cache that cannot be written is none."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, shared=True) as unfinished, unfinished.open("wb") as file:
            np.savez(
                file,
                facts=json.dumps(corpus.facts.to_primitives()),
                source_tokens=corpus.source.tokens.numpy(),
                source_starts=corpus.source.starts.numpy(),
                target_tokens=corpus.target.tokens.numpy(),
                target_starts=corpus.target.starts.numpy(),
                split=corpus.split,
            )


def connected_groups(sources: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group of each pair, (N,): pairs that share a source or a target number are in one. sources, targets: (N,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first = int(sources.max()) + 1
    nodes = first + int(targets.max()) + 1
    graph = coo_matrix((np.ones(len(sources), np.int8), (sources, targets + first)), shape=(nodes, nodes))
    of_node = connected_components(graph, directed=False)[1]
    return np.unique(of_node[sources], return_inverse=True)[1].astype(np.int64)


def _numbered(texts: Sequence[str]) -> NDArray[np.int64]:
    """Equal texts get equal numbers, in the order in which they come."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, len(texts))


def _sources_of_groups(sources: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many different sources each group has."""
    _, firsts = np.unique(sources, return_index=True)
    return np.bincount(groups[firsts], minlength=int(groups.max()) + 1)


def _unicode(place: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{place} is not UTF-8: {text!r}. Nothing was predicted.") from error
    return text


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def made_up_pairs(count: int, chinese: bool = False) -> list[tuple[str, str]]:
    """Different sentences of a few words, in a language and word by word in another."""
    nouns = ["house", "river", "merchant", "night", "garden", "boat", "letter", "window"]
    verbs = ["sees", "loves", "leaves", "finds", "paints"]
    kinds = ["grey", "old", "small", "quiet"]
    words = [*nouns, *verbs, *kinds, "the", ".", "!"]  # in the order of the other language's
    chinese_words = "房河商夜园船信窗看爱离找画灰老小静这。！"
    french = (
        "maison rivière marchand nuit jardin bateau lettre fenêtre voit aime quitte trouve peint gris vieux petit calme"
    )
    other = dict(zip(words, chinese_words if chinese else f"{french} le . !".split(), strict=True))
    draw = random.Random(0)
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        object_ = ["the", *draw.sample(kinds, draw.randrange(3)), draw.choice(nouns)]
        sentence = ["the", *draw.sample(kinds, draw.randrange(2)), draw.choice(nouns), draw.choice(verbs), *object_]
        sentence.append(draw.choice(".!"))
        translation = ("" if chinese else " ").join(other[word] for word in sentence)
        pairs.setdefault(" ".join(sentence).capitalize(), translation)
    return list(pairs.items())
