"""Somebody's own sentence pairs: reading, splits, folds, vocabularies, the cache, what is translated, what is wrong."""

import io
import json
import random
import re
import sys
import warnings
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from leyden.batches import EOS, PAD, SPECIALS, SentencePairs, Side, TranslationFacts, texts_of
from leyden.data import Prompt
from leyden.errors import DataError, UsageError
from leyden_datamodules import _parallel
from leyden_datamodules._parallel import ParallelData, connected_groups, made_up_pairs
from leyden_datamodules.parallel_text import ParallelText

Pair = tuple[str, str]
SPLITS = ("train", "val", "test")
PAIRS = made_up_pairs(160)
SIZES: dict[str, Any] = {"val_size": 11, "test_size": 13}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pairs.tsv"


def write(path: Path, pairs: list[Pair]) -> Path:
    path.write_text("".join(f"{first}\t{second}\n" for first, second in pairs), encoding="utf-8")
    return path


def read(path: Path, *stages: str, **options: Any) -> ParallelText:
    """The file's pairs, set up for these stages."""
    data = ParallelText(root=str(path), **options)
    for stage in stages or ("fit", "test"):
        data.setup(stage)
    return data


def facts_of(data: ParallelData) -> TranslationFacts:
    assert isinstance(data.facts, TranslationFacts)
    return data.facts


def written(side: Side, tokens: torch.Tensor) -> list[str]:
    """Rows of tokens as words, without padding and <eos>."""
    return [" ".join(side.symbols[token] for token in row if token not in (PAD, EOS)) for row in tokens.tolist()]


def everything(data: ParallelData, split: str) -> SentencePairs:
    source: Any = data.splits[split]
    batch: SentencePairs = source.__getitems__(range(len(source)))
    return batch


def sentences(data: ParallelData, split: str) -> list[Pair]:
    """The pairs of a split, normalised; of what evaluates, each source sentence with its first translation."""
    batch, facts = everything(data, split), facts_of(data)
    return list(zip(written(facts.source, batch.source), written(facts.target, batch.target), strict=True))


def spaced(text: str) -> str:
    """What normalising makes of the sentences in these tests."""
    return " ".join(re.sub(r"([.!?])", r" \1 ", text).split()).lower()


def groups_by_hand(pairs: list[Any]) -> list[set[int]]:
    """The pairs that are connected by a shared side, by union-find."""
    parent = list(range(len(pairs)))

    def root(pair: int) -> int:
        while parent[pair] != pair:
            pair = parent[pair]
        return pair

    seen: dict[Any, int] = {}
    for number, pair in enumerate(pairs):
        for key in enumerate(pair):
            parent[root(number)] = root(seen.setdefault(key, number))
    groups: dict[int, set[int]] = defaultdict(set)
    for number in range(len(pairs)):
        groups[root(number)].add(number)
    return list(groups.values())


def tangled(count: int, kinds: int, seed: int = 0) -> list[Pair]:
    """Pairs that share sentences, of either side; spelt so that they are equal only once normalised."""
    draw = random.Random(seed)
    ends = (".", " .", "  .")
    return [
        (f"Source {draw.randrange(kinds)}{draw.choice(ends)}", f"target {draw.randrange(kinds)}{draw.choice(ends)}")
        for _ in range(count)
    ]


# reading


def test_one_file_with_a_tab_in_each_line(path: Path) -> None:
    path.write_bytes("\ufeffGo.\tVa !\tCC-BY\r\nWho?\tQui ?\r\n".encode())
    data = ParallelText(root=str(path))
    assert data._pairs == _parallel.Pairs(["Go.", "Who?"], ["Va !", "Qui ?"], [f"{path}, line 1", f"{path}, line 2"])


def test_two_files_line_by_line(tmp_path: Path) -> None:
    first, second = tmp_path / "text.en", tmp_path / "text.fr"
    first.write_text("Go.\nWho?")
    second.write_text("Va !\nQui ?\n")
    pairs = ParallelText(root=str(first), second=str(second))._pairs
    assert list(zip(pairs.first, pairs.second, strict=True)) == [("Go.", "Va !"), ("Who?", "Qui ?")]
    assert pairs.where[1] == f"{first} and {second}, line 2"


def test_both_ways_of_writing_pairs_give_the_same(path: Path, tmp_path: Path) -> None:
    for place, name in enumerate(("text.en", "text.fr")):
        (tmp_path / name).write_text("".join(f"{pair[place]}\n" for pair in PAIRS), encoding="utf-8")
    one = read(write(path, PAIRS), **SIZES)
    two = read(tmp_path / "text.en", second=str(tmp_path / "text.fr"), **SIZES)
    assert one.facts == two.facts
    for split in SPLITS:
        assert all(torch.equal(*both) for both in zip(everything(one, split), everything(two, split), strict=True))


def test_either_language_may_be_the_source(path: Path) -> None:
    write(path, PAIRS)
    forth, back = (read(path, source=source, **SIZES) for source in ("en", "fr"))
    assert (facts_of(forth).source.language, facts_of(forth).target.language) == ("en", "fr")
    assert (facts_of(back).source.language, facts_of(back).target.language) == ("fr", "en")
    assert ("maison" in facts_of(back).source.symbols, "house" in facts_of(back).target.symbols) == (True, True)
    first = {source for source, _ in sentences(back, "test")}
    assert first <= {spaced(french) for _, french in PAIRS}


def test_max_pairs_reads_the_beginning(path: Path, tmp_path: Path) -> None:
    write(path, [*PAIRS[:2], ("", "bad"), *PAIRS[2:]])
    assert ParallelText(root=str(path), max_pairs=2)._pairs.first == [pair[0] for pair in PAIRS[:2]]
    for place, name in enumerate(("text.en", "text.fr")):
        (tmp_path / name).write_text("".join(f"{pair[place]}\n" for pair in [*PAIRS[:2], ("", "bad"), *PAIRS[2:]]))
    two = ParallelText(root=str(tmp_path / "text.en"), second=str(tmp_path / "text.fr"), max_pairs=2)
    assert two._pairs.first == [pair[0] for pair in PAIRS[:2]]
    for options in ({"root": str(path)}, {"root": two.root, "second": two.second}):
        with pytest.warns(UserWarning, match="^lines left out: 1"):
            found = ParallelText(**options, max_pairs=3, on_error="skip")._pairs  # type: ignore[arg-type]
        assert found.first == [pair[0] for pair in PAIRS[:3]]


# tokens


def test_tokens_are_the_sentence_and_its_end(path: Path) -> None:
    data = read(write(path, PAIRS), "fit", min_freq=1, fold="all", test_size=0)
    assert sorted(sentences(data, "train")) == sorted((spaced(one), spaced(two)) for one, two in PAIRS)
    batch = everything(data, "train")
    for tokens, lengths in ((batch.source, batch.source_lengths), (batch.target, batch.target_lengths)):
        ends = tokens.gather(1, lengths[:, None] - 1)
        assert (ends == EOS).all()
        assert ((tokens == EOS).sum(dim=1) == 1).all()


def test_num_steps_gives_all_batches_one_length(path: Path) -> None:
    data = read(write(path, PAIRS), num_steps=8, batch_size=32, **SIZES)
    assert facts_of(data).num_steps == 8
    batches = [*data.train_dataloader(), *data.test_dataloader()]
    assert {(batch.source.shape[1], batch.target.shape[1]) for batch in batches} == {(8, 8)}
    free = read(path, **SIZES)
    assert replace(facts_of(data), num_steps=None) == facts_of(free)
    cut, whole = everything(data, "train"), everything(free, "train")
    assert torch.equal(cut.source, whole.source[:, :8])
    assert cut.source_lengths.tolist() == whole.source_lengths.clamp(max=8).tolist()


def test_num_steps_that_cut_off_every_end_are_refused(path: Path) -> None:
    write(path, PAIRS)
    with pytest.raises(UsageError, match=r"num_steps is 3, .* every target sentence .* the shortest has 7 tokens"):
        read(path, num_steps=3, **SIZES)
    with pytest.warns(UserWarning, match=r"^of \d+ training pairs \d+ are cut to num_steps 8 tokens"):
        read(path, num_steps=8, **SIZES)


def test_training_batches_are_of_like_lengths_without_num_steps(path: Path) -> None:
    data = read(write(path, PAIRS), batch_size=8, **SIZES)
    spreads = [
        int(batch.target_lengths.max() - batch.target_lengths.min()) for batch in list(data.train_dataloader())[:-1]
    ]
    assert max(spreads) <= 1
    num_steps = read(path, batch_size=8, num_steps=9, **SIZES)
    spreads = [int(batch.target_lengths.max() - batch.target_lengths.min()) for batch in num_steps.train_dataloader()]
    assert max(spreads) > 1, "one length for all leaves the order free"


def test_the_whole_split_may_be_one_batch(path: Path) -> None:
    data = read(write(path, PAIRS), batch_size=None, **SIZES)
    [batch] = data.train_dataloader()
    assert len(batch.source) == 136


@pytest.mark.parametrize(("source_level", "target_level"), [("char", "word"), ("word", "char"), ("bpe", "bpe")])
def test_each_side_has_its_level(path: Path, source_level: Any, target_level: Any) -> None:
    if "bpe" in (source_level, target_level):
        pytest.importorskip("tokenizers")
    data = read(write(path, PAIRS), source_level=source_level, target_level=target_level, bpe_size=60, **SIZES)
    facts, batch = facts_of(data), everything(data, "test")
    assert (facts.source.level, facts.target.level) == (source_level, target_level)
    for side, tokens, texts in (
        (facts.source, batch.source, {spaced(pair[0]) for pair in PAIRS}),
        (facts.target, batch.target, {spaced(pair[1]) for pair in PAIRS}),
    ):
        rows = written(side, tokens)
        if side.level != "word":
            rows = [row.replace(" ", "").replace("\u2581", " ").strip() for row in rows]
        assert set(rows) <= texts
    assert "\u2581" in texts_of(batch.words)[0] or source_level == "word"


# splits


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=40))
def test_groups_are_what_shared_sentences_connect(pairs: list[tuple[int, int]]) -> None:
    sources, targets = (
        np.unique(np.array(side), return_inverse=True)[1].astype(np.int64) for side in zip(*pairs, strict=True)
    )
    found: dict[int, set[int]] = defaultdict(set)
    for number, group in enumerate(connected_groups(sources, targets).tolist()):
        found[group].add(number)
    assert sorted(found) == list(range(len(found)))
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, groups_by_hand(pairs)))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(2, 60),
    st.integers(3, 80),
    st.integers(0, 9),
    st.integers(1, 6) | st.sampled_from([0.1, 0.3]),
    st.integers(0, 6) | st.sampled_from([0.1, 0.3]),
    st.sampled_from([None, "2/3", "1/2", "all"]),
)
def test_no_sentence_of_a_split_is_in_another(
    tmp_path: Path, count: int, kinds: int, seed: int, val_size: Any, test_size: Any, fold: str | None
) -> None:
    pairs = tangled(count, kinds, seed)
    path = write(tmp_path / "tangled.tsv", pairs)
    data = ParallelText(root=str(path), seed=seed, val_size=val_size, test_size=test_size, min_freq=1, fold=fold)
    try:
        split = data._corpus.split
    except (DataError, UsageError):
        assume(False)
    keys = [(spaced(one), spaced(two)) for one, two in pairs]
    groups = groups_by_hand(keys)
    for group in groups:
        assert len({int(split[number]) for number in group}) == 1
    sources = [{keys[number][0] for number in np.flatnonzero(split == part)} for part in range(3)]
    total = len({one for one, _ in keys})
    wanted_val, wanted_test = (
        round(size * total) if isinstance(size, float) else size for size in (val_size, test_size)
    )
    largest = max(len({keys[number][0] for number in group}) for group in groups)
    assert wanted_test <= len(sources[2]) < wanted_test + largest
    if fold is None:
        assert len(sources[1]) < wanted_val + largest
        assert len(sources[1]) >= wanted_val, "the training split is what the others leave"


def test_sizes_are_reached_where_groups_are_large(path: Path) -> None:
    """Ten groups of ten sources with one translation: asking for 5 to test on gives 10, and there are 15 to validate.

    The sizes are counted in sources, of which each group has all or none in a split.
    """
    pairs = [(f"source {group} {number}", f"target {group}") for group in range(10) for number in range(10)]
    data = read(write(path, pairs), val_size=15, test_size=5)
    assert [len(data.splits[split]) for split in SPLITS] == [70, 20, 10]


def test_sizes_may_be_shares(path: Path) -> None:
    data = read(write(path, PAIRS), val_size=0.05, test_size=0.25)
    assert [len(data.splits[split]) for split in SPLITS] == [112, 8, 40]


def test_the_seed_decides_the_splits(path: Path) -> None:
    write(path, PAIRS)
    first, same, other = (read(path, seed=seed, **SIZES) for seed in (0, 0, 1))
    assert [sentences(first, split) for split in SPLITS] == [sentences(same, split) for split in SPLITS]
    assert set(sentences(first, "test")) != set(sentences(other, "test"))


def test_several_translations_are_references_of_one_sentence(path: Path) -> None:
    pairs = [
        *((f"source {number}", f"target {number}") for number in range(20)),
        ("Go.", "Va !"),
        ("go .", "Vas-y !"),
        ("Go.", "Va\u00a0!"),
        ("Go.", "Bouge !"),
    ]
    for seed in range(40):
        data = read(write(path, pairs), "fit", seed=seed, val_size=6, test_size=0, min_freq=1)
        batch = everything(data, "val")
        words = texts_of(batch.words)
        assert len(set(words)) == len(words), "a source is evaluated once"
        if "go ." in words:
            break
    assert texts_of(batch.references)[words.index("go .")].split("\n") == ["Va !", "Vas-y !", "Bouge !"]
    assert texts_of(batch.references)[0].startswith("target")


def test_short_sentences_are_evaluated_first(path: Path) -> None:
    lengths = everything(read(write(path, PAIRS), val_size=40, test_size=40), "test").source_lengths.tolist()
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 2


def test_evaluation_keeps_the_words_that_training_has_not_seen(path: Path) -> None:
    pairs = [(f"Word{number} is here.", f"Mot{number} est Ici.") for number in range(40)]
    data = read(write(path, pairs), val_size=5, test_size=5)
    batch = everything(data, "test")
    assert facts_of(data).source.symbols == (*SPECIALS, ".", "here", "is")
    assert (batch.source[:, 0] == 0).all()
    for words, reference in zip(texts_of(batch.words), texts_of(batch.references), strict=True):
        number = re.fullmatch(r"word(\d+) is here \.", words)[1]  # type: ignore[index]
        assert reference == f"Mot{number} est Ici.", "references stand as in the file"


@pytest.mark.parametrize("level", ["word", "char", "bpe"])
def test_there_are_as_many_words_as_tokens(path: Path, level: Any) -> None:
    if level == "bpe":
        pytest.importorskip("tokenizers")
    data = read(
        write(path, [*PAIRS, ("†‡ of 3.5", "de 3.5")]), source_level=level, bpe_size=50, val_size=50, test_size=60
    )
    for split in ("val", "test"):
        batch = everything(data, split)
        assert [len(words.split(" ")) + 1 for words in texts_of(batch.words)] == batch.source_lengths.tolist()


# folds


def test_each_sentence_validates_in_one_fold_and_none_is_in_two(path: Path) -> None:
    pairs = tangled(120, 90)
    write(path, pairs)
    validated: Counter[str] = Counter()
    tested = []
    for number in (1, 2, 3):
        data = read(path, fold=f"{number}/3", test_size=10, min_freq=1)
        [train, val, test] = [
            {spaced(pairs[place][0]) for place in np.flatnonzero(data._corpus.split == part)} for part in range(3)
        ]
        assert {source for source, _ in sentences(data, "train")} == train
        for split, expected in (("val", val), ("test", test)):
            words = texts_of(everything(data, split).words)
            assert sorted(words) == sorted(expected)
        validated.update(val)
        tested.append(test)
        assert train.isdisjoint(val | test)
        assert train | val | test == {spaced(source) for source, _ in pairs}
    assert tested[0] == tested[1] == tested[2], "what is tested on is no part of a fold"
    assert set(validated.values()) == {1}
    assert set(validated).isdisjoint(tested[0])


def test_fold_all_trains_on_all_that_is_not_tested_on(path: Path) -> None:
    data = read(write(path, PAIRS), fold="all", test_size=13)
    assert sorted(data.splits) == ["test", "train"]
    assert (len(data.splits["train"]), len(data.splits["test"])) == (147, 13)
    assert data.val_dataloader() == []


def test_more_folds_than_groups(path: Path) -> None:
    pairs = [(f"source {number}", "one target for all") for number in range(9)]
    with pytest.raises(UsageError, match="3 folds cannot be cut from 1 groups"):
        read(write(path, pairs), "fit", fold="1/3", test_size=0)


# vocabularies


@pytest.mark.parametrize("fold", [None, "2/3", "all"])
def test_the_vocabulary_is_that_of_the_training_split(path: Path, fold: str | None) -> None:
    pairs = [(f"word{number % 50} a{number}", f"mot{number % 50} b{number}") for number in range(200)]
    data = read(write(path, pairs), *(["fit"] if fold == "all" else []), fold=fold, min_freq=2, **SIZES)
    split = data._corpus.split
    for place, side in enumerate((facts_of(data).source, facts_of(data).target)):
        counts = Counter(word for number in np.flatnonzero(split == 0) for word in pairs[number][place].split())
        assert set(side.symbols[len(SPECIALS) :]) == {word for word, count in counts.items() if count >= 2}
        assert side.symbols[:4] == SPECIALS


def test_byte_pairs_are_learnt_from_the_training_split(path: Path) -> None:
    pytest.importorskip("tokenizers")
    strange = [("ж" * number, f"x{number}") for number in range(3, 9)]
    write(path, [*((f"{one}", two) for one, two in PAIRS), *strange])
    for seed in range(9):
        data = read(path, source_level="bpe", bpe_size=60, val_size=50, test_size=60, seed=seed)
        trained = any("ж" in data._pairs.first[number] for number in np.flatnonzero(data._corpus.split == 0))
        assert any("ж" in symbol for symbol in facts_of(data).source.symbols) == trained


def test_facts_survive_being_written(path: Path) -> None:
    pytest.importorskip("tokenizers")
    facts = facts_of(read(write(path, PAIRS), target_level="bpe", bpe_size=50, **SIZES))
    assert facts.target.merges
    assert TranslationFacts.from_primitives(json.loads(json.dumps(facts.to_primitives()))) == facts


# the cache


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many pairs as are worth being cached."""
    return write(tmp_path_factory.mktemp("many") / "many.tsv", made_up_pairs(10_000))


def stored(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def same(one: ParallelData, other: ParallelData) -> bool:
    if one.facts != other.facts:
        return False
    return all(
        torch.equal(left, right)
        for split in SPLITS
        for left, right in zip(everything(one, split), everything(other, split), strict=True)
    )


def refuse(*_: Any) -> Any:
    raise AssertionError("tokens were made anew")


def test_tokens_of_many_pairs_are_kept(many: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(many)
    [file] = stored(cache)
    assert file.parent == cache / "sentence-pairs"
    before = file.stat().st_mtime_ns
    monkeypatch.setattr(_parallel, "learn", refuse)
    again = read(many)
    assert same(first, again)
    assert file.stat().st_mtime_ns == before
    cut = read(many, num_steps=8)
    assert facts_of(cut) == replace(facts_of(first), num_steps=8), "batches are cut from the same tokens"
    assert everything(cut, "train").source.shape[1] == 8


def test_one_process_prepares_what_all_read(many: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (ParallelText(root=str(many)) for _ in range(2))
    first.prepare_data()  # Lightning calls it in the first process of a node alone
    assert len(stored(cache)) == 1
    monkeypatch.setattr(_parallel, "learn", refuse)
    second.setup("fit")
    first.setup("fit")
    assert second.facts == first.facts


def test_few_pairs_are_not_kept(many: Path, cache: Path) -> None:
    read(many, max_pairs=9_999)
    assert stored(cache) == []


def test_without_a_folder_given_it_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LEYDEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _parallel.cache_folder().name == "leyden"


def test_other_content_or_settings_are_kept_apart(many: Path, path: Path) -> None:
    def key(root: Path = many, **options: Any) -> str:
        data = ParallelText(root=str(root), **options)
        return data._cache_path(data._pairs).name

    changed = many.read_text(encoding="utf-8").replace("house", "hovel", 1)
    path.write_text(changed, encoding="utf-8")
    swapped = write(path.with_name("swapped.tsv"), [(two, one) for one, two in made_up_pairs(10_000)])
    others: list[dict[str, Any]] = [
        {"root": path},
        {"root": swapped},
        {"source": "fr"},
        {"languages": "en-de"},
        {"source_level": "char"},
        {"target_level": "char"},
        {"lower": False},
        {"min_freq": 3},
        {"bpe_size": 99},
        {"max_pairs": 9_000},
        {"val_size": 0.03},
        {"test_size": 0.03},
        {"seed": 1},
        {"fold": "1/3"},
        {"fold": "2/3"},
        {"fold": "all"},
        {"languages": "en-zh"},
        {"languages": "en-zh", "simplified": True},
    ]
    keys = [key(), *(key(**options) for options in others)]
    assert len(set(keys)) == len(keys)
    same_tokens: list[dict[str, Any]] = [{"num_steps": 5}, {"batch_size": 2}, {"max_words": 100}]
    assert {key(**options) for options in same_tokens} == {key()}


def directory(content: bytes, offset: int, value: int) -> bytes:
    """A zip archive with another byte in the first entry of its directory."""
    place = content.index(b"PK\1\2") + offset
    return content[:place] + bytes([value]) + content[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"\xff" * 64 + content[64:],
        lambda content: content[:-64] + b"\0" * 64,
        lambda content: b"no archive",
        lambda content: directory(content, 8, 1),
        lambda content: directory(content, 10, 99),
    ],
    ids=["empty", "half", "beginning", "end", "text", "encrypted", "compressed"],
)
def test_a_damaged_file_is_made_anew(many: Path, cache: Path, damage: Any) -> None:
    first = read(many)
    [file] = stored(cache)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert same(read(many), first)
    assert stored(cache) == [file]
    assert _parallel._load_corpus(file) is not None, "a good one has taken its place"


def test_a_kept_file_with_other_facts_is_made_anew(many: Path, cache: Path) -> None:
    first = read(many)
    [file] = stored(cache)
    with np.load(file) as archive:
        arrays = dict(archive)
    for facts in ('{"source": {"tongue": "en"}, "target": {}}', "{}", "[]", "no json"):
        with file.open("wb") as damaged:
            np.savez(damaged, **{**arrays, "facts": np.array(facts)})
        assert _parallel._load_corpus(file) is None
    del arrays["split"]
    with file.open("wb") as damaged:
        np.savez(damaged, **arrays)
    assert same(read(many), first)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_damage_of_a_kept_file_is_an_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    corpus = ParallelText(root=str(write(folder / "pairs.tsv", PAIRS)))._corpus
    file = folder / "kept.npz"
    _parallel._save_corpus(file, corpus)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    again = _parallel._load_corpus(file)
    if again is not None:
        assert again.facts == corpus.facts
        assert np.array_equal(again.split, corpus.split)
        for one, two in ((again.source, corpus.source), (again.target, corpus.target)):
            assert torch.equal(one.tokens, two.tokens)
            assert torch.equal(one.starts, two.starts)


def test_a_cache_that_cannot_be_written_is_none(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LEYDEN_CACHE", str(tmp_path / "file"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read(many)
    assert len(data.splits["train"]) > 9_000
    assert (tmp_path / "file").read_bytes() == b""


def test_writing_that_fails_leaves_nothing(many: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert len(read(many).splits["train"]) > 9_000
    assert stored(cache) == []


# what is translated


FACTS = TranslationFacts(
    Side("en", "word", (*SPECIALS, "the", "river", ".", "!", "house", "3.5")), Side("fr", "word", (*SPECIALS, "le"))
)


def inputs(*given: str, facts: TranslationFacts = FACTS, **options: Any) -> Any:
    data = ParallelText(**options)
    data.facts, data.inputs = facts, list(given)
    data.setup("predict")
    return data.splits["predict"]


def rows(source: Any) -> list[list[str]]:
    """Each text's tokens, in writing, without padding."""
    batch = source.__getitems__(range(len(source)))
    return [
        [FACTS.source.symbols[token] for token in row[:length]]
        for row, length in zip(batch.source.tolist(), batch.source_lengths.tolist(), strict=True)
    ]


def test_texts_are_translated_in_their_order() -> None:
    given = ["The river.", "", "xylophone †", "The river. The house! 3.5", " \u00a0\u200b"]
    source = inputs(*given)
    assert source.inputs == given
    assert rows(source) == [
        ["the", "river", ".", "<eos>"],
        [],
        ["<unk>", "<unk>", "<eos>"],
        ["the", "river", ".", "<eos>", "the", "house", "!", "<eos>", "3.5", "<eos>"],
        [],
    ]
    batch = source.__getitems__(range(5))
    assert texts_of(batch.words) == ["the river .", "", "xylophone †", "the river . the house ! 3.5", ""]
    assert (batch.target == PAD).all()
    assert (batch.target_lengths == 0).all()


def test_the_lines_of_a_file_and_of_standard_input(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path.write_bytes(b"The river.\r\n\r\nThe house. The river\r\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("3.5\n\n†".encode())))
    source = inputs(str(path), "-", Prompt(path.name), "the")
    assert source.inputs == ["The river.", "", "The house. The river", "3.5", "", "†", "pairs.tsv", "the"]
    lengths = source.__getitems__(range(8)).source_lengths.tolist()
    assert lengths == [4, 0, 7, 2, 0, 2, 4, 2]


def test_a_file_of_many_lines(path: Path) -> None:
    path.write_text("".join(f"river {number}.\n" for number in range(2_000)))
    source = inputs(str(path))
    assert source.inputs == [f"river {number}." for number in range(2_000)]
    assert texts_of(source.__getitems__([1_999, 5]).words) == ["river 1999 .", "river 5 ."]


def test_a_long_sentence_is_translated_in_pieces() -> None:
    with pytest.warns(UserWarning, match="^sentences of more than max_words 3, translated in pieces: 1") as found:
        source = inputs("the river the house the", "the river", max_words=3)
    assert len(found) == 1
    assert rows(source) == [
        ["the", "river", "the", "<eos>", "house", "the", "<eos>"],
        ["the", "river", "<eos>"],
    ]


def test_a_sentence_longer_than_num_steps_is_told_of_and_left_whole() -> None:
    with pytest.warns(UserWarning, match="cut to num_steps 4; longer ones") as found:
        source = inputs("the river the house the", facts=replace(FACTS, num_steps=4))
    assert len(found) == 1
    assert len(rows(source)[0]) == 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs("the river.", facts=replace(FACTS, num_steps=4))


def test_texts_are_read_as_the_checkpoint_says(path: Path) -> None:
    facts = replace(FACTS, source=Side("en", "char", (*SPECIALS, "a", "B"), lower=False))
    batch = inputs("aBb", facts=facts, source_level="word").__getitems__([0])
    assert batch.source.tolist() == [[4, 5, 0, EOS]]


def test_processes_share_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    broadcast: list[bytes] = []
    data = ParallelText()
    data.facts, data.inputs = FACTS, ["-"]
    strategy = SimpleNamespace(broadcast=lambda content: broadcast.append(content) or b"the river\n")
    data.trainer = SimpleNamespace(strategy=strategy, is_global_zero=False)  # type: ignore[assignment]
    source: Any = data.load_inputs(["-"])
    assert source.inputs == ["the river"]
    assert broadcast == [b""], "only the first process reads"


@pytest.mark.parametrize("name", ["lines.txt", "folder/lines", "lines.jsonl"])
def test_a_mistyped_name_of_a_file_is_translated_with_a_warning(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"^input 1: there is no file '{name}'; it is taken for a text"):
        assert inputs(name).inputs == [name]


@pytest.mark.parametrize("text", ["the.", "3.5", "and / or", "e.g. this", "house", ""])
@pytest.mark.filterwarnings("error")
def test_a_text_is_not_taken_for_the_name_of_a_file(text: str) -> None:
    assert inputs(text).inputs == [text]


def test_texts_that_are_not_utf8(path: Path) -> None:
    path.write_bytes(b"the\nriver\xe9\n")
    with pytest.raises(DataError, match=r"pairs\.tsv, line 2: the byte 0xe9 is not UTF-8"):
        inputs(str(path))
    with pytest.raises(UsageError, match=r"^input 2 is not UTF-8: 'caf.udce9'\."):
        inputs("the", "caf\udce9")  # what Python makes of such an argument


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_nothing_to_translate(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"pairs\.tsv is empty"):
        inputs(str(path))


# what cannot be used


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Go.\tVa !\nWho? Qui ?\n", r"pairs\.tsv, line 2: has no tab"),
        (b"Go.\tVa !\n\nWho?\tQui ?\n", r"pairs\.tsv, line 2: has no tab"),
        (b"Go.\tVa !\nWho?\t\n", r"pairs\.tsv, line 2: its second sentence is empty"),
        (b"Go.\tVa !\n \tQui ?\n", r"pairs\.tsv, line 2: its first sentence is empty"),
        ("Go.\tVa !\n\u200b\u00ad\tQui ?\n".encode(), r"pairs\.tsv, line 2: its first sentence is empty"),
        ("Go.\tVa !\nWho?\t\u202f\t\n".encode(), r"pairs\.tsv, line 2: its second sentence is empty"),
        (b"Go.\tVa !\nWho?\tO\xf9 ?\n", r"pairs\.tsv, line 2: the byte 0xf9 is not UTF-8"),
        (b"", r"pairs\.tsv: is empty"),
        (b"\xef\xbb\xbf\n", r"pairs\.tsv: is empty"),
        (b"\n \n\r\n", r"pairs\.tsv: is empty"),
    ],
)
def test_a_file_that_cannot_be_used(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_bad_lines_may_be_left_out(path: Path) -> None:
    lines = [f"{first}\t{second}" for first, second in PAIRS]
    path.write_text("\n".join([*lines[:80], "no tab", "\tQui ?", *lines[80:], "Who?\t "]), encoding="utf-8")
    with pytest.raises(DataError, match=r"line 81: has no tab.*--data\.on_error skip"):
        read(path, **SIZES)
    with pytest.warns(UserWarning, match=r"^lines left out: 3\. The first: .*pairs\.tsv, line 81: has no tab") as found:
        data = read(path, on_error="skip", **SIZES)
    assert len(found) == 1
    assert same(data, read(write(path, PAIRS), **SIZES))


def test_a_file_of_bad_lines_alone(path: Path) -> None:
    path.write_text("one\ntwo\n")
    with (
        pytest.warns(UserWarning, match="lines left out: 2"),
        pytest.raises(DataError, match=r"pairs\.tsv: has no sentence pairs"),
    ):
        read(path, on_error="skip")


@pytest.mark.parametrize("gap", [" ", "\u00a0", "  "])
def test_a_sentence_of_very_many_words_is_left_out(path: Path, gap: str) -> None:
    long = gap.join(["word"] * 10_000)
    write(path, [*PAIRS[:5], ("short", long), *PAIRS[5:], (long, "short")])
    with pytest.warns(UserWarning, match=r"^pairs left out .* max_words 200: 2\..*pairs\.tsv, line 6$") as found:
        data = read(path, **SIZES)
    assert len(found) == 1
    assert sum(len(data.splits[split]) for split in SPLITS) == 160
    write(path, [("short", long)])
    with (
        pytest.warns(UserWarning, match="pairs left out .*: 1"),
        pytest.raises(UsageError, match="max_words is 200, and every pair has a longer sentence"),
    ):
        read(path)


def test_sentences_of_max_words_are_kept(path: Path) -> None:
    write(path, [*PAIRS, (" ".join(["word"] * 12), "mot"), ("word", " ".join(["mot"] * 13))])
    with pytest.warns(UserWarning, match=r"^pairs left out .*: 1\. .*line 162$"):
        data = read(path, "fit", max_words=12, fold="all", test_size=0)
    assert len(data.splits["train"]) == 161


@pytest.mark.parametrize("level", ["word", "char"])
def test_a_min_freq_that_leaves_no_vocabulary(path: Path, level: Any) -> None:
    message = f"vocabulary of en has nothing but <unk>, <pad>, <bos>, <eos>: no {level} occurs min_freq 99999 times"
    with pytest.raises(UsageError, match=message):
        read(write(path, PAIRS), source_level=level, min_freq=99_999, **SIZES)


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        (PAIRS, {"val_size": 100, "test_size": 60}, r"its 160 different source sentences are too few for val_size 100"),
        (PAIRS[:1], {}, r"its 1 pairs leave nothing for val \(val_size 0\.02, test_size 0\.05"),
        (PAIRS[:5], {"val_size": 1, "test_size": 0.05}, r"its 5 pairs leave nothing for test \(val_size 1"),
        (PAIRS[:5], {"val_size": 1, "test_size": 4}, r"its 5 different source sentences are too few"),
        ([("a", "x"), ("b", "x"), ("c", "x")], {"val_size": 1}, r"its 3 pairs leave nothing for train"),
        ([("a", "x"), ("b", "x")], {"val_size": 1, "test_size": 0}, r"its 2 pairs leave nothing for train"),
        (PAIRS[:9], {"fold": "all", "test_size": 20}, r"its 9 pairs leave nothing for train"),
    ],
)
def test_too_few_sentences(path: Path, pairs: list[Pair], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(path, pairs), min_freq=1, **options)
    assert str(path) in str(caught.value)


def test_nothing_to_test_on(path: Path) -> None:
    data = read(write(path, PAIRS), "fit", val_size=5, test_size=0)
    with pytest.raises(UsageError, match="nothing to test on: test_size is 0"):
        data.setup("test")


def test_files_that_are_not_there(tmp_path: Path, path: Path) -> None:
    with pytest.raises(UsageError, match=r"--data\.root FILE"):
        ParallelText().setup("fit")
    for options in ({"root": str(tmp_path / "nowhere")}, {"root": str(write(path, PAIRS)), "second": "nowhere"}):
        with pytest.raises(DataError, match="nowhere: no such file"):
            ParallelText(**options).setup("fit")
    with pytest.raises(DataError, match="no such file"):
        ParallelText(root=str(tmp_path)).setup("fit")


def test_two_files_of_different_length(tmp_path: Path) -> None:
    first, second = tmp_path / "text.en", tmp_path / "text.fr"
    first.write_text("Go.\nWho?\n")
    second.write_text("Va !\nQui ?\nQuoi ?\n")
    with pytest.raises(DataError, match=r"text\.en has 2 lines and .*text\.fr has 3: they must be as many"):
        ParallelText(root=str(first), second=str(second)).setup("fit")
    second.write_text("Va !\n \n")
    with pytest.raises(DataError, match=r"text\.en and .*text\.fr, line 2: its second sentence is empty"):
        ParallelText(root=str(first), second=str(second)).setup("fit")
    second.write_text("\n")
    with pytest.raises(DataError, match=r"text\.fr: is empty"):
        ParallelText(root=str(first), second=str(second)).setup("fit")


@pytest.mark.parametrize("languages", ["english-french", "en", "en_fr", "en-en", "EN-FR", "", "en-fr-de", "en-fr\n"])
def test_languages_that_are_no_pair(languages: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"languages is {languages!r}; it must be two different codes")):
        ParallelText(languages=languages)


def test_a_source_that_is_neither_language(path: Path) -> None:
    with pytest.raises(UsageError, match="source is 'de'; it must be en or fr"):
        read(write(path, PAIRS), source="de")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"min_freq": 0}, "min_freq is 0"),
        ({"max_pairs": 0}, "max_pairs is 0"),
        ({"max_words": 0}, "max_words is 0"),
        ({"bpe_size": 4}, "bpe_size is 4; it must be more than the 4 special symbols"),
        ({"val_size": 0}, "--data.fold all"),
        ({"val_size": 1.0}, r"val_size is 1\.0"),
        ({"test_size": -1}, "test_size is -1"),
        ({"test_size": -0.5}, r"test_size is -0\.5"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_an_option_out_of_its_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ParallelText(**options)


@pytest.mark.parametrize(
    ("module", "options"),
    [
        ("tokenizers", {"source_level": "bpe"}),
        ("jieba", {"languages": "zh-en"}),
        ("opencc", {"languages": "zh-en", "source_level": "char", "simplified": True}),
    ],
)
def test_a_missing_library(module: str, options: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"{module}: pip install 'leyden\[translation\]'"):
        read(write(path, PAIRS), **options, **SIZES)
