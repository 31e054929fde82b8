"""How a text becomes batches: windows that start anew, and rows of windows that go on where they stopped."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from leyden.batches import IGNORED, TokenWindows
from leyden.data import ShardedSampler, TrainLoader, as_indices


class Windows(Dataset[TokenWindows]):
    """Base: a text of n + 1 tokens as `count` windows of num_steps tokens, each with the token that comes next.

    tokens: (n + 1,) of any integer type. slack: how many tokens at most are left out at the beginning; how many they
    are is drawn anew for each epoch.
    """

    def __init__(self, tokens: Tensor, num_steps: int, count: int, slack: int = 0, seed: int = 0) -> None:
        self.tokens = tokens
        self.num_steps = num_steps
        self.count = count
        self.slack = slack
        self.seed = seed
        # in shared memory: the loader's workers hold a copy of this data set, but must see the epoch's offset
        self.offset: Tensor = torch.zeros((), dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draw the offset of an epoch; the same in every process."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        self.offset.copy_(torch.randint(self.slack + 1, (), generator=generator))

    @abstractmethod
    def places(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Of the items (n,) int64: the first token of each, (n,) int64, and whether it starts anew, (n,) bool."""

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> TokenWindows:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> TokenWindows:
        begins, starts = self.places(as_indices(indices))
        window = self.tokens[begins[:, None] + torch.arange(self.num_steps + 1)].long()
        return TokenWindows(window[:, :-1], window[:, 1:], starts, torch.full_like(begins, self.num_steps))


class FreeWindows(Windows):
    """Windows `stride` tokens apart, each of which starts anew; with a stride above 1 at a random offset below it."""

    def __init__(self, tokens: Tensor, num_steps: int, stride: int, seed: int = 0) -> None:
        room = len(tokens) - 1 - num_steps  # for the beginnings of windows
        count = max(1, 1 + (room - (stride - 1)) // stride)  # as many as fit behind the largest offset
        super().__init__(tokens, num_steps, count, slack=min(stride - 1, room - (count - 1) * stride), seed=seed)
        self.stride = stride

    def places(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Each starts anew."""
        return self.offset + self.stride * items, torch.ones(len(items), dtype=torch.bool)


class TrainingRows(Windows):
    """The text in rows of equal length, read side by side: item i is in row i % rows, its window number i // rows."""

    def __init__(self, tokens: Tensor, num_steps: int, rows: int, seed: int = 0) -> None:
        pairs = len(tokens) - 1
        self.rows = rows
        self.windows = pairs // (rows * num_steps)
        count = rows * self.windows
        super().__init__(tokens, num_steps, count, slack=pairs - count * num_steps, seed=seed)

    def places(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Rows start anew with their first window."""
        rows, windows = items % self.rows, items // self.rows
        return self.offset + (rows * self.windows + windows) * self.num_steps, windows == 0


class EvaluationRows(Windows):
    """The text in rows, read side by side, every token once: the rows' last windows are padded.

    Rows differ in length by one token at most, the longer ones first. Item i is in row i % rows.
    """

    def __init__(self, tokens: Tensor, num_steps: int, rows: int) -> None:
        self.shortest, self.longer_rows = divmod(len(tokens) - 1, rows)
        self.rows = rows
        whole, rest = divmod(self.shortest, num_steps)
        count = rows * (whole + 1) if rest else rows * whole + self.longer_rows
        super().__init__(tokens, num_steps, count)

    def places(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Rows start anew with their first window."""
        rows, windows = items % self.rows, items // self.rows
        return self._begins(rows) + windows * self.num_steps, windows == 0

    def __getitems__(self, indices: Sequence[int]) -> TokenWindows:
        items = as_indices(indices)
        begins, starts = self.places(items)
        lengths = (self._begins(items % self.rows + 1) - begins).clamp(max=self.num_steps)
        steps = torch.arange(self.num_steps + 1)
        window = self.tokens[(begins[:, None] + steps).clamp(max=len(self.tokens) - 1)].long()
        padded = steps[:-1] >= lengths[:, None]
        tokens, targets = window[:, :-1].masked_fill(padded, 0), window[:, 1:].masked_fill(padded, IGNORED)
        return TokenWindows(tokens, targets, starts, lengths)

    def _begins(self, rows: Tensor) -> Tensor:
        return rows * self.shortest + rows.clamp(max=self.longer_rows)


class RowSampler(ShardedSampler):
    """Gives each process whole rows of an `EvaluationRows`: the first window of all its rows, then the second, ..."""

    def __init__(self, source: EvaluationRows, rank: int, world_size: int) -> None:
        super().__init__(len(source), rank, world_size, shuffle=False, seed=0)
        self.items = [item for item in range(len(source)) if item % source.rows % world_size == rank]
        self.rows = len(range(rank, source.rows, world_size))

    def __iter__(self) -> Iterator[int]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class RowLoader(DataLoader[Any]):
    """Batches of the next windows of all rows that are this process's, as the given sampler numbers processes."""

    def __init__(self, dataset: EvaluationRows, sampler: Any, batch_size: int | None = None, **kwargs: Any) -> None:
        # overfit_batches puts another sampler in the place of ours
        own = RowSampler(dataset, getattr(sampler, "rank", 0), getattr(sampler, "num_replicas", 1))
        super().__init__(dataset, sampler=own, batch_size=own.rows, **kwargs)


class WindowLoader(TrainLoader):
    """A TrainLoader whose windows begin elsewhere in each epoch."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        source: Any = self.dataset
        source.begin_epoch(getattr(self.sampler, "epoch", 0))  # overfit_batches puts another sampler in its place
        yield from super().__iter__()
