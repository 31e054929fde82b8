"""Sentence pairs as data sets and batches: tokens held in one piece, and batches of sentences of like lengths."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from leyden.batches import EOS, PAD, SentencePairs, bytes_of
from leyden.data import ShardedSampler, TrainLoader, as_indices

POOL = 100  # batches whose sentences are sorted by length together


class Ragged:
    """Rows of tokens of different lengths, held behind each other.

    tokens: (N,) int32. starts: (rows + 1,) int64, where each row begins, and the end of the last.
    """

    def __init__(self, tokens: NDArray[np.int32], starts: NDArray[np.int64]) -> None:
        self.tokens = torch.from_numpy(tokens)
        self.starts = torch.from_numpy(starts)
        self.lengths = self.starts.diff()  # (rows,) int64

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        """Rows of tokens as lists."""
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        return cls(np.fromiter((token for row in rows for token in row), np.int32, int(starts[-1])), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def select(self, rows: Tensor) -> "Ragged":
        """The rows (n,) int64, in this order."""
        lengths = self.lengths[rows]
        starts = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
        places = torch.arange(int(starts[-1])) + (self.starts[rows] - starts[:-1]).repeat_interleave(lengths)
        return Ragged(self.tokens[places].numpy(), starts.numpy())

    def padded(self, rows: Tensor, width: int | None) -> tuple[Tensor, Tensor]:
        """Rows (n,) int64 as (n, T) int64, padded with PAD, and their lengths (n,): T is `width`, else the longest."""
        lengths = self.lengths[rows]
        if width is not None:
            lengths = lengths.clamp(max=width)
        steps = torch.arange(int(lengths.max()) if width is None else width)
        places = (self.starts[rows][:, None] + steps).clamp(max=max(0, len(self.tokens) - 1))
        inside = steps < lengths[:, None]
        tokens = self.tokens[places].long() if len(self.tokens) else places
        return tokens.masked_fill_(~inside, PAD), lengths


class TrainPairs(Dataset[SentencePairs]):
    """Pairs to train on. num_steps: the length of all sentences; None pads to the longest of a batch."""

    def __init__(self, source: Ragged, target: Ragged, num_steps: int | None) -> None:
        self.source = source
        self.target = target
        self.num_steps = num_steps

    def __len__(self) -> int:
        return len(self.source)

    @property
    def order_by(self) -> Tensor:
        """(N,) int64; near numbers are pairs of like lengths, by target, then source."""
        return self.target.lengths * (int(self.source.lengths.max()) + 1) + self.source.lengths

    def __getitem__(self, index: int) -> SentencePairs:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> SentencePairs:
        rows = as_indices(indices)
        no_text = torch.zeros(len(rows), 0, dtype=torch.uint8)
        source, target = (side.padded(rows, self.num_steps) for side in (self.source, self.target))
        return SentencePairs(*source, *target, no_text, no_text)


class EvaluationPairs(TrainPairs):
    """Sentences to evaluate on, each with a translation as tokens. words, references: as in SentencePairs, as texts."""

    def __init__(
        self,
        source: Ragged,
        target: Ragged,
        num_steps: int | None,
        words: Sequence[str],
        references: Sequence[str],
    ) -> None:
        super().__init__(source, target, num_steps)
        self.words = words
        self.references = references

    def __getitems__(self, indices: Sequence[int]) -> SentencePairs:
        words, references = (bytes_of([texts[index] for index in indices]) for texts in (self.words, self.references))
        return super().__getitems__(indices)._replace(words=words, references=references)


class Sources(Dataset[SentencePairs]):
    """Texts to translate, N of them. sentences: of each text its sentences, and of these their tokens, in writing."""

    def __init__(
        self, inputs: Sequence[str], sentences: Sequence[Sequence[Sequence[int]]], words: Sequence[str]
    ) -> None:
        self.inputs = inputs
        self.source = Ragged.of([[token for each in text for token in (*each, EOS)] for text in sentences])
        self.words = words

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, indices: Sequence[int]) -> SentencePairs:
        tokens, lengths = self.source.padded(as_indices(indices), None)
        nothing = torch.full((len(indices), 1), PAD)
        words = bytes_of([self.words[index] for index in indices])
        return SentencePairs(tokens, lengths, nothing, torch.zeros_like(lengths), words, words[:, :0])


class LengthSampler(ShardedSampler):
    """Shuffles so that each batch has sentences of like lengths, and the processes' batches of a step have, too.

    The order is drawn anew for each epoch. Pairs are shuffled, sorted by length within a pool of many batches, cut into
    batches, and these are shuffled; the one that may be smaller comes last.

    Args:
        order_by: (N,) int64, near numbers for pairs of like lengths.
        batch_size: pairs in a batch of one process.
        rank, world_size, seed: as for ShardedSampler.
    """

    def __init__(self, order_by: Tensor, batch_size: int, rank: int, world_size: int, seed: int) -> None:
        super().__init__(len(order_by), rank, world_size, shuffle=True, seed=seed, batch_size=batch_size)
        self.order_by = order_by

    def __iter__(self) -> Iterator[int]:
        generator = self.generator()
        items = torch.tensor(self.order(generator))
        order, repeated = items[: self.length], items[self.length :]
        whole = self.batch_size * self.num_replicas
        batches: list[Tensor] = []
        for pool in torch.split(order, whole * POOL):
            batches += torch.split(pool[self.order_by[pool].argsort(stable=True)], whole)
        full = len(order) // whole
        shuffled = [*torch.randperm(full, generator=generator).tolist(), *range(full, len(batches))]
        batches[-1] = torch.cat((batches[-1], repeated))  # behind what counts
        own = torch.cat([batches[place][self.rank :: self.num_replicas] for place in shuffled])
        return iter(own[self.start :].tolist())


class PairLoader(TrainLoader):
    """A TrainLoader of batches of like lengths."""

    def __init__(self, dataset: Any, sampler: Any, batch_size: int, **kwargs: Any) -> None:
        if isinstance(sampler, ShardedSampler):  # overfit_batches puts another sampler in the place of ours
            place = (sampler.rank, sampler.num_replicas, sampler.seed)
            sampler = LengthSampler(dataset.order_by, batch_size, *place)
        super().__init__(dataset, sampler=sampler, batch_size=batch_size, **kwargs)
