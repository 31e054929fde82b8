"""The real sentence pairs of English and French and of Chinese and English, found where LEYDEN_DATA says."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leyden.batches import SPECIALS, TranslationFacts, texts_of
from leyden_datamodules import chinese_english, english_french
from leyden_datamodules._parallel import ParallelData, _numbered, connected_groups
from leyden_datamodules._sentences import Tokeniser
from leyden_datamodules.chinese_english import ChineseEnglish
from leyden_datamodules.english_french import EnglishFrench

SETS: dict[str, Any] = {
    "en-fr": (EnglishFrench, english_french.FILE, {}),
    "zh-en": (ChineseEnglish, chinese_english.FILE, {"source_level": "char", "simplified": True}),
}
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module", params=SETS)
def name(request: pytest.FixtureRequest) -> str:
    kind, file, _ = SETS[request.param]
    if not (kind().path() / file).is_file():
        pytest.skip(f"{kind.folder}/{file} is not under LEYDEN_DATA")
    return str(request.param)


@pytest.fixture(scope="module")
def data(name: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if name == "zh-en":
        pytest.importorskip("opencc")
    kind, _, options = SETS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEYDEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = kind(**options, val_size=1000, test_size=2000)
        made.setup("fit")
        made.setup("test")
    return made


def normalised(data: ParallelData) -> list[tuple[str, str]]:
    """Each pair of the file as the module's own normalising leaves it."""
    columns = (data._pairs.first, data._pairs.second)
    sides = (Tokeniser(data._side(number)).normalise(column) for number, column in enumerate(columns))
    return list(zip(*sides, strict=True))


def groups_of(pairs: list[tuple[str, str]]) -> list[int]:
    """The group of each pair, by union-find over its two sentences."""
    parent: dict[Any, Any] = {}

    def root(node: Any) -> Any:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for source, target in pairs:
        parent[root((0, source))] = root((1, target))
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(root((0, source)), len(numbers)) for source, _ in pairs]


def by_the_book(text: str) -> str:
    """Dive into Deep Learning, 10.5.1: one kind of space, also before punctuation, and small letters."""
    text = text.replace("\u202f", " ").replace("\xa0", " ").lower()
    return re.sub(r"(?<=[^ ])([,.!?])", r" \1", text)


COUNTS = {  # pairs; groups of the book's sentences; groups of ours, and pairs of the largest
    # sentences that differ in nothing but the number of spaces are one of ours, which joins two groups to others
    "en-fr": (167_130, 109_668, 109_666, 56),
    # eleven sentences are also written with the marks of English, and are one of ours, which joins five groups more
    "zh-en": (32_028, 26_425, 26_420, 26),
}


def test_counts(name: str) -> None:
    data: ParallelData = SETS[name][0]()
    pairs, read, ours = normalised(data), data._pairs, COUNTS[name][2:]
    books = [(by_the_book(one), by_the_book(two)) for one, two in zip(read.first, read.second, strict=True)]
    assert (len(pairs), len(set(groups_of(books)))) == COUNTS[name][:2]
    by_hand = groups_of(pairs)
    assert (len(set(by_hand)), max(Counter(by_hand).values())) == ours
    sides = (_numbered(side) for side in zip(*pairs, strict=True))
    found = connected_groups(*sides).tolist()
    assert len(set(zip(found, by_hand, strict=True))) == len(set(found)) == ours[0], "both ways give the same groups"


def test_no_sentence_of_a_split_is_in_another(data: Any) -> None:
    pairs, split = normalised(data), data._corpus.split
    for side in range(2):
        found = [{pairs[place][side] for place in np.flatnonzero(split == number)} for number in range(3)]
        assert not found[0] & found[1]
        assert not found[0] & found[2]
        assert not found[1] & found[2]


def test_sizes_count_sources(data: Any) -> None:
    pairs, split = normalised(data), data._corpus.split
    for number, least in ((1, 1000), (2, 2000)):
        sources = {pairs[place][0] for place in np.flatnonzero(split == number)}
        assert least <= len(sources) == len(data.splits[SPLITS[number]]) < least + 56
    assert len(data.splits["train"]) == int((split == 0).sum())


def test_evaluation_has_each_source_once_with_all_its_translations(data: Any) -> None:
    pairs, split, source = normalised(data), data._corpus.split, data.splits["test"]
    batch = source.__getitems__(range(len(source)))
    places = np.flatnonzero(split == 2)
    expected: dict[str, set[str]] = {}
    for place in places:
        sentence = pairs[place][0].replace(" ", "")
        expected.setdefault(sentence, set()).add(" ".join(data._pairs.second[place].split()))
    words = [each.replace(" ", "") for each in texts_of(batch.words)]
    references = [set(each.split("\n")) for each in texts_of(batch.references)]
    assert len(words) == len(expected)
    assert dict(zip(words, references, strict=True)) == expected


def test_the_vocabulary_is_that_of_the_training_split(data: Any) -> None:
    facts: TranslationFacts = data.facts
    pairs, split = normalised(data), data._corpus.split
    counts = Counter(word for place in np.flatnonzero(split == 0) for word in pairs[place][1].split(" "))
    assert facts.target.symbols[:4] == SPECIALS
    assert set(facts.target.symbols[4:]) == {word for word, count in counts.items() if count >= 2}


def test_an_epoch_gives_each_pair_once(data: Any) -> None:
    batches = [(len(batch.source), int(batch.target_lengths.sum())) for batch in data.train_dataloader()]
    assert sum(pairs for pairs, _ in batches) == len(data.splits["train"])
    assert sum(tokens for _, tokens in batches) == int(data.splits["train"].target.lengths.sum())


def test_the_same_is_read_from_the_cache(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_CACHE", str(tmp_path))
    kind, _, options = SETS[name]
    first, again = (kind(**options)._corpus for _ in range(2))
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    assert first.facts == again.facts
    assert np.array_equal(first.split, again.split)
    for one, two in ((first.source, again.source), (first.target, again.target)):
        assert bool((one.tokens == two.tokens).all())
        assert bool((one.starts == two.starts).all())
