"""Windows and rows of a text: every token where it belongs, in one process and in several. Tokens are their places."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from leyden.batches import IGNORED, TokenWindows
from leyden.data import ShardedSampler, identity
from leyden_datamodules._windows import EvaluationRows, FreeWindows, RowLoader, RowSampler, TrainingRows, WindowLoader


def text(tokens: int) -> Tensor:
    return torch.arange(tokens, dtype=torch.int16)


def everything(source: Any) -> TokenWindows:
    return source.__getitems__(range(len(source)))


def train_loader(source: Any, batch_size: int, shuffle: bool, rank: int = 0, processes: int = 1, **kwargs: Any) -> Any:
    sampler = ShardedSampler(len(source), rank, processes, shuffle, seed=3)
    return WindowLoader(source, batch_size=batch_size, sampler=sampler, collate_fn=identity, **kwargs)


def row_loader(source: EvaluationRows, rank: int, processes: int) -> RowLoader:
    sampler = ShardedSampler(len(source), rank, processes, shuffle=False, seed=0)
    return RowLoader(source, sampler=sampler, batch_size=5, collate_fn=identity)


def test_a_window_holds_tokens_and_the_ones_that_come_next() -> None:
    source = FreeWindows(text(13), num_steps=4, stride=4)
    tokens, targets, starts, lengths = source.__getitems__([1, 0])
    first = int(source.offset)
    assert tokens.tolist() == [list(range(first + 4, first + 8)), list(range(first, first + 4))]
    assert targets.tolist() == [list(range(first + 5, first + 9)), list(range(first + 1, first + 5))]
    assert starts.tolist() == [True, True]
    assert lengths.tolist() == [4, 4]
    assert tokens.dtype == targets.dtype == lengths.dtype == torch.int64


@given(st.integers(1, 9), st.integers(0, 60), st.integers(0, 5))
def test_random_windows_lie_side_by_side_in_the_text_whatever_the_offset(steps: int, more: int, epoch: int) -> None:
    tokens = steps + 1 + more
    source = FreeWindows(text(tokens), steps, stride=steps, seed=1)
    source.begin_epoch(epoch)
    batch = everything(source)
    flat = batch.tokens.flatten().tolist()
    assert flat == list(range(flat[0], flat[0] + len(flat)))
    assert flat[0] < steps
    assert torch.equal(batch.targets, batch.tokens + 1)
    assert flat[-1] + 1 < tokens
    assert tokens - 1 - len(flat) < 2 * steps  # no more is left out than an offset may cost


def test_each_epoch_has_its_own_offset_and_each_offset_its_turn() -> None:
    source = FreeWindows(text(50), num_steps=5, stride=5, seed=7)
    offsets = []
    for epoch in range(60):
        source.begin_epoch(epoch)
        offsets.append(int(source.offset))
    assert set(offsets) == set(range(5))
    source.begin_epoch(17)
    assert int(source.offset) == offsets[17]
    assert offsets[:20] != offsets[20:40]
    other = FreeWindows(text(50), num_steps=5, stride=5, seed=8)
    other.begin_epoch(17)
    assert len({*offsets[17:18], int(other.offset)}) == 2


def test_windows_of_stride_one_start_at_every_token() -> None:
    source = FreeWindows(text(10), num_steps=4, stride=1)
    assert len(source) == 6
    assert everything(source).tokens[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert everything(source).targets[5].tolist() == [6, 7, 8, 9]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_moves_the_windows_in_each_epoch_also_in_a_worker(workers: int) -> None:
    source = FreeWindows(text(42), num_steps=10, stride=10, seed=2)
    loader = train_loader(source, 2, True, num_workers=workers, persistent_workers=workers > 0)
    seen = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        seen.append(sorted(torch.cat([batch.tokens[:, 0] for batch in loader]).tolist()))
    expected = []
    for epoch in range(4):
        source.begin_epoch(epoch)
        expected.append([int(source.offset) + 10 * window for window in range(3)])
    assert seen == expected
    assert len({tuple(begins) for begins in seen}) > 1


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 40), st.integers(0, 3))
def test_training_rows_go_on_where_they_stopped(steps: int, rows: int, more: int, epoch: int) -> None:
    tokens = rows * steps + 1 + more
    source = TrainingRows(text(tokens), steps, rows, seed=1)
    source.begin_epoch(epoch)
    loader = train_loader(source, rows, shuffle=False)
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    assert all(len(batch.tokens) == rows for batch in batches)
    assert [batch.starts.tolist() for batch in batches] == [[step == 0] * rows for step in range(len(batches))]
    side_by_side = torch.cat([batch.tokens for batch in batches], dim=1)
    assert torch.equal(side_by_side.diff(dim=1), torch.ones_like(side_by_side[:, 1:]))
    assert torch.equal(torch.cat([batch.targets for batch in batches], dim=1), side_by_side + 1)
    flat = side_by_side.flatten()
    assert torch.equal(flat, torch.arange(flat[0], flat[0] + len(flat)))  # rows do not overlap
    assert 0 <= flat[0] <= flat[-1] < tokens - 1
    assert tokens - 1 - len(flat) < rows * steps


def test_each_process_keeps_its_training_rows() -> None:
    whole = list(train_loader(TrainingRows(text(100), 4, rows=6, seed=1), 6, shuffle=False))
    shares = [
        list(train_loader(TrainingRows(text(100), 4, rows=6, seed=1), 3, False, rank, processes=2)) for rank in range(2)
    ]
    for step, batch in enumerate(whole):
        for rank in range(2):
            assert torch.equal(shares[rank][step].tokens, batch.tokens[rank::2])
    assert len(shares[0]) == len(shares[1]) == len(whole) == 4


def test_training_goes_on_in_the_middle_of_the_rows() -> None:
    whole = list(train_loader(TrainingRows(text(100), 4, rows=3, seed=1), 3, shuffle=False))
    resumed = train_loader(TrainingRows(text(100), 4, rows=3, seed=1), 3, shuffle=False)
    resumed.load_state_dict({"batches_given": 5, "batch_size": 3, "processes": 1})
    rest = list(resumed)
    assert [batch.tokens.tolist() for batch in rest] == [batch.tokens.tolist() for batch in whole[5:]]
    assert not any(bool(batch.starts.any()) for batch in rest)


@given(st.integers(1, 6), st.integers(1, 7), st.integers(0, 60), st.integers(1, 4))
def test_evaluation_gives_every_token_once_in_whole_rows(steps: int, rows: int, more: int, processes: int) -> None:
    pairs = rows + more
    processes = min(processes, rows)
    source = EvaluationRows(text(pairs + 1), steps, rows)
    found: list[int] = []
    for rank in range(processes):
        texts: list[list[int]] = [[] for _ in range(rank, rows, processes)]
        for number, batch in enumerate(row_loader(source, rank, processes)):
            assert (batch.starts == (number == 0)).all()
            assert (batch.lengths > 0).all()
            for row, (tokens, targets, _, length) in enumerate(zip(*batch, strict=True)):
                assert targets[:length].tolist() == (tokens[:length] + 1).tolist()
                assert (tokens[length:] == 0).all()
                assert (targets[length:] == IGNORED).all()
                texts[row] += tokens[:length].tolist()  # the rows that are left keep their places
        for tokens in texts:
            assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))
            found += tokens
    assert sorted(found) == list(range(pairs))


def test_the_rows_do_not_depend_on_the_number_of_processes() -> None:
    source = EvaluationRows(text(48), num_steps=5, rows=5)
    whole = list(row_loader(source, 0, 1))
    for processes in (2, 3, 5):
        for rank in range(processes):
            own = list(row_loader(source, rank, processes))
            for number, batch in enumerate(own):
                assert torch.equal(batch.tokens, whole[number].tokens[rank::processes])


def test_a_process_may_have_a_batch_less() -> None:
    """Of 3 rows of 8, 7 and 7 tokens in windows of 7, only the first has a second window."""
    source = EvaluationRows(text(23), num_steps=7, rows=3)
    assert [len(RowSampler(source, rank, 2)) for rank in range(2)] == [3, 1]
    assert [len(row_loader(source, rank, 2)) for rank in range(2)] == [2, 1]


def test_a_row_loader_serves_where_lightning_has_replaced_its_sampler() -> None:
    source = EvaluationRows(text(23), num_steps=7, rows=3)
    loader = RowLoader(source, sampler=SimpleNamespace(), collate_fn=identity)
    assert sum(len(batch.tokens) for batch in loader) == len(source) == 4
