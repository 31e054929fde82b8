"""Sentence pairs as batches: padding, batches of like lengths, shares of processes, going on within an epoch."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import SequentialSampler

from leyden.batches import EOS, PAD, SentencePairs, texts_of
from leyden.data import ShardedSampler, TrainLoader, identity
from leyden.errors import UsageError
from leyden_datamodules import _pairs
from leyden_datamodules._pairs import EvaluationPairs, LengthSampler, PairLoader, Ragged, Sources, TrainPairs

Rows = list[list[int]]
rows_of_tokens = st.lists(st.lists(st.integers(4, 99), max_size=6), min_size=1, max_size=8)


def pairs_of(count: int, longest: int = 12) -> TrainPairs:
    """Pairs whose first source token is their number, of lengths drawn at random."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, longest, (count, 2))
    source = [[number, *[7] * (length - 1), EOS] for number, (length, _) in enumerate(lengths, start=100)]
    target = [[*[8] * length, EOS] for _, length in lengths]
    return TrainPairs(Ragged.of(source), Ragged.of(target), None)


def loader(pairs: TrainPairs, batch_size: int, rank: int = 0, world_size: int = 1, seed: int = 0) -> PairLoader:
    sampler = ShardedSampler(len(pairs), rank, world_size, True, seed)
    return PairLoader(pairs, sampler=sampler, batch_size=batch_size, collate_fn=identity)


def epoch(load: TrainLoader, number: int = 0) -> list[list[int]]:
    """Which pairs are in each batch of an epoch."""
    load.sampler.set_epoch(number)
    return [batch.source[:, 0].sub(100).tolist() for batch in load]


@given(count=st.integers(1, 90), size=st.integers(1, 4), world_size=st.integers(1, 3), number=st.integers(0, 2))
def test_all_processes_together_see_in_each_step_what_one_sees(
    count: int, size: int, world_size: int, number: int
) -> None:
    pairs = pairs_of(count)
    alone = epoch(loader(pairs, size * world_size), number)
    loads = [loader(pairs, size, rank, world_size) for rank in range(world_size)]
    together = list(zip(*(epoch(load, number) for load in loads), strict=True))
    assert len(alone) == len(together)
    for last, (items, shares) in enumerate(zip(alone, together, strict=True), start=1 - len(alone)):
        repeat = [last == 0 and rank >= len(items) for rank in range(world_size)]
        counted = [item for share, again in zip(shares, repeat, strict=True) if not again for item in share]
        assert sorted(counted) == sorted(items)


def each_once(batches: Sequence[Sequence[int]]) -> list[int]:
    return sorted(number for batch in batches for number in batch)


# rows


@given(rows_of_tokens, st.integers(1, 8) | st.none(), st.data())
def test_rows_are_padded_or_cut(rows: Rows, width: int | None, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5))
    tokens, lengths = Ragged.of(rows).padded(torch.tensor(chosen), width)
    wide = max(len(rows[row]) for row in chosen) if width is None else width
    expected = [(rows[row] + [PAD] * wide)[:wide] for row in chosen]
    assert tokens.tolist() == expected
    assert tokens.dtype == lengths.dtype == torch.int64
    assert tokens.shape == (len(chosen), wide)
    assert lengths.tolist() == [min(len(rows[row]), wide) for row in chosen]


@given(rows_of_tokens, st.data())
def test_some_rows_are_selected(rows: Rows, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5))
    part = Ragged.of(rows).select(torch.tensor(chosen))
    assert len(part) == len(chosen)
    assert part.lengths.tolist() == [len(rows[row]) for row in chosen]
    found = [part.padded(torch.tensor([place]), None)[0][0].tolist() for place in range(len(part))]
    assert found == [rows[row] for row in chosen]


def test_a_training_batch_is_padded_to_its_longest_and_has_no_texts() -> None:
    pairs = TrainPairs(Ragged.of([[5, 6, EOS], [5, EOS]]), Ragged.of([[9, EOS], [9, 8, 7, EOS]]), None)
    batch = pairs.__getitems__([1, 0])
    assert batch.source.tolist() == [[5, EOS, PAD], [5, 6, EOS]]
    assert batch.source_lengths.tolist() == [2, 3]
    assert batch.target.tolist() == [[9, 8, 7, EOS], [9, EOS, PAD, PAD]]
    assert batch.target_lengths.tolist() == [4, 2]
    assert batch.words.shape == batch.references.shape == (2, 0)
    alone = pairs[1]
    assert alone.source.tolist() == [[5, EOS]]


def test_num_steps_cuts_and_pads_as_the_book_does() -> None:
    """Dive into Deep Learning, 10.5.3: the sentence and <eos>, cut to num_steps or padded; padding has no length."""
    pairs = TrainPairs(Ragged.of([[5, 6, 7, 8, EOS], [5, EOS]]), Ragged.of([[9, 9, EOS], [9, EOS]]), 3)
    batch = pairs.__getitems__([0, 1])
    assert batch.source.tolist() == [[5, 6, 7], [5, EOS, PAD]]
    assert batch.source_lengths.tolist() == [3, 2]
    assert batch.target.tolist() == [[9, 9, EOS], [9, EOS, PAD]]
    assert batch.target_lengths.tolist() == [3, 2]


def test_evaluation_has_the_words_and_the_translations() -> None:
    ragged = Ragged.of([[5, EOS], [5, 6, EOS]])
    pairs = EvaluationPairs(ragged, ragged, None, ["Ça", "ça va"], ["So", "how are you\nhow do you do"])
    batch = pairs.__getitems__([1, 0, 1])
    assert texts_of(batch.words) == ["ça va", "Ça", "ça va"]
    assert texts_of(batch.references) == ["how are you\nhow do you do", "So", "how are you\nhow do you do"]
    assert batch.source.tolist() == [[5, 6, EOS], [5, EOS, PAD], [5, 6, EOS]]


def test_texts_to_translate_may_have_several_sentences_or_none() -> None:
    sources = Sources(["a b. c", "", "†"], [[[5, 6], [7]], [], [[0]]], ["a b . c", "", "†"])
    batch = sources.__getitems__([0, 1, 2])
    assert batch.source.tolist() == [[5, 6, EOS, 7, EOS], [PAD] * 5, [0, EOS, PAD, PAD, PAD]]
    assert batch.source_lengths.tolist() == [5, 0, 2]
    assert batch.target.tolist() == [[PAD], [PAD], [PAD]]
    assert batch.target_lengths.tolist() == [0, 0, 0]
    assert texts_of(batch.words) == ["a b . c", "", "†"]
    assert batch.references.shape == (3, 0)


def test_a_batch_of_nothing_to_translate() -> None:
    batch = Sources(["", ""], [[], []], ["", ""]).__getitems__([1])
    assert batch.source.shape == (1, 0)
    assert batch.source_lengths.tolist() == [0]


# batches of like lengths


def test_batches_have_sentences_of_like_lengths() -> None:
    """All within one pool: sorted by the target's length, then the source's, each batch is a stretch of the order."""
    pairs = pairs_of(203)
    keys = list(zip(pairs.target.lengths.tolist(), pairs.source.lengths.tolist(), strict=True))
    batches = epoch(loader(pairs, 10))
    assert [len(batch) for batch in batches] == [10] * 20 + [3]
    assert each_once(batches) == list(range(203))
    by_length = sorted(batches, key=lambda batch: min(keys[number] for number in batch))
    for shorter, longer in pairwise(by_length):
        assert max(keys[number] for number in shorter) <= min(keys[number] for number in longer)


def test_padding_is_far_less_than_in_batches_of_any_length() -> None:
    pairs = pairs_of(640, longest=40)
    plain = TrainLoader(pairs, sampler=ShardedSampler(640, 0, 1, True, 0), batch_size=16, collate_fn=identity)
    padding = [sum(int((batch.target == PAD).sum()) for batch in each) for each in (loader(pairs, 16), plain)]
    assert padding[0] < padding[1] / 10


def test_pools_keep_the_order_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """With small pools a batch is of like lengths among those of its pool alone."""
    monkeypatch.setattr(_pairs, "POOL", 2)
    pairs = pairs_of(203)
    first, second = (epoch(loader(pairs, 10, seed=seed)) for seed in (0, 1))
    assert each_once(first) == each_once(second) == list(range(203))
    assert {frozenset(batch) for batch in first}.isdisjoint({frozenset(batch) for batch in second})


def test_batches_come_in_no_order_of_length() -> None:
    pairs = pairs_of(400)
    lengths = [int(pairs.target.lengths[batch].max()) for batch in epoch(loader(pairs, 10))]
    assert lengths != sorted(lengths)
    assert lengths != sorted(lengths, reverse=True)


def test_each_epoch_has_an_order_of_its_own_that_the_seed_decides() -> None:
    pairs = pairs_of(100)
    load = loader(pairs, 8, seed=3)
    first, second = epoch(load, 0), epoch(load, 1)
    assert first != second
    assert each_once(first) == each_once(second)
    assert [epoch(loader(pairs, 8, seed=3), number) for number in (0, 1)] == [first, second]
    assert epoch(loader(pairs, 8, seed=4)) != first


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.integers(0, 3))
def test_processes_share_an_epoch_equally(count: int, batch_size: int, processes: int, seed: int) -> None:
    pairs = pairs_of(count)
    shares = [epoch(loader(pairs, batch_size, rank, processes, seed)) for rank in range(processes)]
    sizes = [[len(batch) for batch in share] for share in shares]
    assert all(len(each) == len(sizes[0]) for each in sizes), "one process would wait for the other"
    assert all(size == batch_size for each in sizes for size in each[:-1])
    assert max(each[-1] for each in sizes) - min(each[-1] for each in sizes) <= 1
    assert all(len(loader(pairs, batch_size, rank, processes)) == len(sizes[0]) for rank in range(processes))
    given = Counter(number for share in shares for batch in share for number in batch)
    assert set(given) == set(range(count)), "some pair is never seen"
    last = count % (batch_size * processes)
    assert sum(given.values()) == count + (processes - last if 0 < last < processes else 0), "more repeat than must"


def test_the_batches_of_a_step_are_of_like_lengths_in_all_processes() -> None:
    pairs = pairs_of(400, longest=40)
    shares = [epoch(loader(pairs, 10, rank, 2)) for rank in range(2)]
    for one, other in zip(*shares, strict=True):
        lengths = [pairs.target.lengths[batch] for batch in (one, other)]
        assert abs(int(lengths[0].max()) - int(lengths[1].max())) <= 2


# going on


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("done", [1, 4, 6])
def test_training_goes_on_in_the_middle_of_an_epoch(done: int, processes: int) -> None:
    pairs = pairs_of(100)
    for rank in range(processes):
        whole = loader(pairs, 7, rank, processes)
        whole.sampler.set_epoch(2)
        expected: list[Any] = []
        state: dict[str, int] = {}
        for number, batch in enumerate(whole, start=1):
            expected.append(batch.source[:, 0].sub(100).tolist())
            if number == done:
                state = dict(whole.state_dict())
        assert state["batches_given"] == done
        again = loader(pairs, 7, rank, processes)
        again.load_state_dict(state)
        assert epoch(again, 2) == expected[done:]
        assert len(epoch(again, 3)) == len(expected), "the next epoch is whole"


def test_batches_of_another_size_cannot_go_on_in_the_middle() -> None:
    load = loader(pairs_of(100), 7)
    next(iter(load))
    with pytest.raises(UsageError, match="batch_size 7 -> 8"):
        loader(pairs_of(100), 8).load_state_dict(load.state_dict())


def test_another_sampler_stays_in_its_place() -> None:
    """Lightning's overfit_batches puts one there."""
    pairs = pairs_of(20)
    load = PairLoader(pairs, sampler=SequentialSampler(pairs), batch_size=8, collate_fn=identity)
    batches: list[SentencePairs] = list(load)
    assert [batch.source[:, 0].sub(100).tolist() for batch in batches] == [
        [*range(8)],
        [*range(8, 16)],
        [*range(16, 20)],
    ]


def test_start_leaves_out_what_was_seen() -> None:
    sampler = LengthSampler(pairs_of(50).order_by, 8, 0, 1, 0)
    whole = list(sampler)
    sampler.start = 16
    assert list(sampler) == whole[16:]
    assert len(whole) == len(sampler) == 50


def test_workers_give_the_same_batches() -> None:
    pairs = pairs_of(60)
    sampler = ShardedSampler(len(pairs), 0, 1, True, 0)
    working = PairLoader(pairs, sampler=sampler, batch_size=8, collate_fn=identity, num_workers=1)
    assert epoch(working) == epoch(loader(pairs, 8))
