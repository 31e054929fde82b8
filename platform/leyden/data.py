"""DataModule: the base of every data module. Loaders, splits, and where data lies.

A data set hands out whole batches: it implements `__getitems__(indices) -> Batch`, so that one indexing operation
fetches a batch. Scaling, normalising and augmenting run on the batch, on the device (`DataModule.transform`).
"""

import functools
import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from lightning.fabric.utilities.seed import pl_worker_init_function
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from leyden import signals
from leyden.batches import Facts, declared_batch
from leyden.errors import UsageError
from leyden.folds import Fold, Marks
from leyden.rules import first_batch, wrong_batch

logger = logging.getLogger("leyden")
Batch = TypeVar("Batch")
Split = Literal["train", "val", "test"]


class BatchSource(Protocol):
    """A map-style data set that hands out whole batches.

    One that augments its items may have `set_epoch(epoch: int)`, called before each epoch of training: what is random
    can then follow from seed, epoch and item alone, whatever workers there are and wherever training was resumed.
    Workers live for several epochs with copies of it: keep the epoch in a tensor of shared memory (`share_memory_()`).
    """

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """The batch of these items, in this order."""


def as_indices(indices: Sequence[int]) -> Tensor:
    """Indices as an int64 tensor; by way of numpy, which reads a list several times faster than torch."""
    return torch.from_numpy(np.asarray(indices, dtype=np.int64))


class InMemory(Dataset[Any]):
    """A data set held as the tensors of one large batch; the first dimension of each counts the items."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch[0])

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Any:
        return self.select(as_indices(indices))

    def select(self, chosen: Tensor) -> Any:
        """The batch of the items `chosen` (n,) int64."""
        return type(self.batch)(*(tensor.index_select(0, chosen) for tensor in self.batch))

    def picture(self, index: int) -> Image.Image:
        """Item `index` as a picture; the first tensor must be uint8 images (N, C, H, W)."""
        pixels: Tensor = self.batch[0][index]
        return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy())


class Part(Dataset[Any]):
    """Some items of a data set, without a copy. chosen: (n,) int64 indices of them."""

    def __init__(self, data: Any, chosen: Tensor) -> None:
        self.data = data
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Any:
        own = self.chosen.index_select(0, as_indices(indices))
        return self.data.select(own) if isinstance(self.data, InMemory) else self.data.__getitems__(own.tolist())

    def set_epoch(self, epoch: int) -> None:
        """Tell a data set that augments its items in which epoch it is asked for them."""
        if hasattr(self.data, "set_epoch"):
            self.data.set_epoch(epoch)

    def picture(self, index: int) -> Image.Image:
        """Item `index` as a picture."""
        picture: Image.Image = self.data.picture(int(self.chosen[index]))
        return picture


class Pool(Dataset[Any]):
    """Two data sets as one: the items of the first, then those of the second."""

    def __init__(self, first: Any, second: Any) -> None:
        self.first = first
        self.second = second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Any:
        wanted = as_indices(indices)
        in_second = wanted >= len(self.first)
        if not in_second.any():
            return self.first.__getitems__(indices)
        if in_second.all():
            return self.second.__getitems__((wanted - len(self.first)).tolist())
        batches = (
            self.first.__getitems__(wanted[~in_second].tolist()),
            self.second.__getitems__((wanted[in_second] - len(self.first)).tolist()),
        )
        place = torch.cat((in_second.logical_not().nonzero()[:, 0], in_second.nonzero()[:, 0])).argsort()
        return type(batches[0])(*(torch.cat(pair).index_select(0, place) for pair in zip(*batches, strict=True)))

    def set_epoch(self, epoch: int) -> None:
        """Tell data sets that augment their items in which epoch they are asked for them."""
        for source in (self.first, self.second):
            if hasattr(source, "set_epoch"):
                source.set_epoch(epoch)

    def picture(self, index: int) -> Image.Image:
        """Item `index` as a picture."""
        source, own = (self.first, index) if index < len(self.first) else (self.second, index - len(self.first))
        picture: Image.Image = source.picture(own)
        return picture


class ShardedSampler(DistributedSampler[Any]):
    """Divides a data set among the processes.

    Process r has the items r, r + world_size, ... of an order that is the same in all, each item once: step k of all
    processes together sees the items that one process sees whose batches are world_size times as large. Shuffled, the
    order depends on seed and epoch alone. In training no process may lack a batch that another one has: where an
    epoch's last step has fewer items than there are processes, the others get an item once more, which does not count
    (`TrainLoader.repeats`).
    `start` items of the process's own share are left out: those that were seen before training was resumed.

    Args:
        length: items of the data set.
        rank, world_size: the process, and how many there are.
        shuffle: whether it is for training.
        seed: of the order.
        batch_size: items in a training batch of one process.
    """

    def __init__(self, length: int, rank: int, world_size: int, shuffle: bool, seed: int, batch_size: int = 1) -> None:
        super().__init__(range(length), world_size, rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.length = length
        self.batch_size = batch_size
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        own = self.order(self.generator()) if self.shuffle else list(range(self.length))
        return iter(own[self.rank :: self.num_replicas][self.start :])

    def __len__(self) -> int:
        return len(range(self.rank, self.length + self.repeated, self.num_replicas))

    @property
    def repeated(self) -> int:
        """How many processes, the last ones, have nothing new in an epoch's last batch."""
        last = self.length % (self.batch_size * self.num_replicas)
        return self.num_replicas - last if self.shuffle and 0 < last < self.num_replicas else 0

    def generator(self) -> torch.Generator:
        """What the order of this epoch is drawn from, the same in all processes."""
        return torch.Generator().manual_seed(self.seed + self.epoch)

    def order(self, generator: torch.Generator) -> list[int]:
        """The shuffled items of all processes in this epoch."""
        order: list[int] = torch.randperm(self.length, generator=generator).tolist()
        while len(order) < self.length + self.repeated:
            order += order[: self.length + self.repeated - len(order)]
        return order


class TrainLoader(DataLoader[Any]):
    """A loader that can be resumed in the middle of an epoch; Lightning keeps its state in the checkpoint."""

    sampler: ShardedSampler
    batches_given = 0
    repeats = False  # whether the batch that was given last is but an item that another process has
    trainer: Trainer | None = None
    on_resumed: Callable[[], None] | None = None  # called once, before the first batch of an epoch that goes on

    @property
    def epoch_length(self) -> float:
        """Batches of an epoch; Lightning may be told to take fewer than there are (`limit_train_batches`)."""
        return len(self) if self.trainer is None else min(len(self), self.trainer.num_training_batches)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        done = self.batches_given
        length = self.epoch_length
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(getattr(self.sampler, "epoch", 0))  # overfit_batches puts in another sampler
        self.sampler.start = done * (self.batch_size or 1)
        whole = isinstance(self.sampler, ShardedSampler) and hasattr(self.dataset, "__getitems__")
        direct = whole and not self.num_workers and not self.pin_memory
        batches = self._batches() if direct else super().__iter__()
        if self.on_resumed is not None:
            self.on_resumed()
            self.on_resumed = None
        for position, batch in enumerate(batches, start=done + 1):
            self.batches_given = position if position < length else 0
            self.repeats = self._ends_in_repetition and position == len(self)
            yield batch
        self.batches_given = self.sampler.start = 0

    @property
    def _ends_in_repetition(self) -> bool:
        sampler: Any = self.sampler  # overfit_batches puts in another one
        return isinstance(sampler, ShardedSampler) and sampler.rank >= sampler.num_replicas - sampler.repeated

    def _batches(self) -> Iterator[Any]:
        """What torch's own iterator gives without workers, in a third of its time."""
        torch.empty((), dtype=torch.int64).random_()  # it draws a seed: with one seed training stays what it was
        source: Any = self.dataset
        size = self.batch_size or 1
        order = list(self.sampler)
        return (source.__getitems__(order[start : start + size]) for start in range(0, len(order), size))

    def state_dict(self) -> dict[str, int]:
        """How many batches of the current epoch were given, and how they were cut."""
        processes = getattr(self.sampler, "num_replicas", 1)  # overfit_batches puts another sampler in its place
        cut = {"batch_size": self.batch_size or 1, "processes": processes, "items": len(self.dataset)}  # type: ignore[arg-type]
        return {"batches_given": self.batches_given, **cut}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next epoch starts behind these batches. Raises UsageError where batches are now cut otherwise."""
        now = self.state_dict()
        cut = [key for key in now if key != "batches_given" and key in state]
        if changed := [key for key in cut if state[key] != now[key]]:
            what = ", ".join(f"{key} {state[key]} -> {now[key]}" for key in changed)
            if not state["batches_given"]:
                logger.info("the epochs before were cut in another way: %s", what)
                return
            raise UsageError(
                f"the checkpoint is from the middle of an epoch, and batches are now cut in another way: {what}. "
                "Go on as it was trained, or from a checkpoint of an epoch's end."
            )
        self.batches_given = state["batches_given"]


class Prompt(str):
    """A text that `predict` was given as it stands (`--prompt TEXT`), whatever files there are."""

    __slots__ = ()


def identity(batch: Any) -> Any:
    """The collate function of data sets that already hand out whole batches."""
    return batch


def data_folders(folder: str) -> list[Path]:
    """Where a data set's folder is looked for: under $LEYDEN_DATA, then under ./data."""
    roots = [os.environ["LEYDEN_DATA"]] if os.environ.get("LEYDEN_DATA") else []
    return [Path(root) / folder for root in [*roots, "data"]]


class DataModule(LightningDataModule, Generic[Batch]):
    """Base of the data modules: `class FashionMNIST(DataModule[LabelledImages])`.

    A subclass says what its batches are (the type argument) and offers `folder`, `fetch` (once per
    node), `load` (the splits), `describe` (the facts), `transform`, `load_inputs` (what `predict` is given) and
    `fabricate` (a tiny data set in the real on-disk format, for tests). For cross-validation it may say what the
    classes and groups of its items are (`strata`, `groups`); where something is computed from the training items
    alone (a mean, a vocabulary), it overrides `load_fold`.

    Args:
        root: folder of the data set. Without it: the folder's standard name under $LEYDEN_DATA, else under ./data.
        batch_size: items in a batch of one process; null takes the whole split at once.
        num_workers: processes that decode data. 0 is best for data that is held in memory.
        seed: of the splits. The order of the training data follows --seed_everything.
        fold: 2/5 validates on the second of five folds of what may be trained on, all trains on all of it; without it
            the data set's own validation split.

    Raises:
        UsageError: for a batch_size below 1, negative num_workers, or a fold that cannot be.
    """

    folder: ClassVar[str]
    held_out: ClassVar[bool] = True  # False where all splits are the same items: nothing is learnt for others
    reads_texts: ClassVar[bool] = False  # True where `predict` takes texts, also from standard input

    def __init__(
        self,
        root: str | None = None,
        batch_size: int | None = 32,
        num_workers: int = 0,
        seed: int = 0,
        fold: str | None = None,
    ) -> None:
        super().__init__()
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be at least 1 (or null: the whole split at once).")
        if num_workers < 0:
            raise UsageError(f"num_workers is {num_workers}; it must be 0 or more.")
        self.root = root
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.fold = None if fold is None else Fold.parse(fold)
        self.facts: Facts | None = None
        self.trained_facts: Facts | None = None  # those of the checkpoint that is evaluated or resumed
        self.inputs: list[str] = []
        self.splits: dict[str, BatchSource] = {}
        self._stage_seen: RunningStage | None = None  # whose first batch was looked at last

    @classmethod
    def batch_type(cls) -> type | None:
        """The type of the batches that this data module gives."""
        return declared_batch(cls, DataModule)

    @classmethod
    @abstractmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """Write a tiny data set in the real on-disk format and return the arguments that read it."""

    @abstractmethod
    def load(self, split: Split) -> BatchSource:
        """The data set of one split, read from disk. Raises DataError that names a bad file."""

    @abstractmethod
    def describe(self) -> Facts:
        """The facts about the data, known once it is on disk."""

    @abstractmethod
    def load_inputs(self, inputs: Sequence[str]) -> BatchSource:
        """What `predict` was given (files, folders or texts) as a data set in the order of the input."""

    def load_fold(self, split: Literal["train", "val"], fold: Fold) -> BatchSource:
        """A part of all that may be trained on, which is the training and the validation split together."""
        first, second = (self.load(name) for name in ("train", "val"))
        both = isinstance(first, Part) and isinstance(second, Part) and first.data is second.data
        pool = Part(first.data, torch.cat((first.chosen, second.chosen))) if both else Pool(first, second)  # type: ignore[attr-defined]
        train, val = fold.cut(len(pool), self.seed, self.strata(pool), self.groups(pool))
        return Part(pool, train if split == "train" else val)

    def strata(self, pool: Any) -> Marks | None:
        """The class of each item of a data set, so that folds have like shares; None where there are no classes."""
        return None

    def groups(self, pool: Any) -> Marks | None:
        """The group of each item of a data set, which a fold must not tear apart; None where there are no groups."""
        return None

    def transform(self, batch: Batch, training: bool) -> Batch:
        """Scale, normalise and, in training, augment a batch on its device. The default changes nothing."""
        return batch

    def path(self) -> Path:
        """The data set's folder: the one given, else the first that exists, else where it would be put."""
        if self.root is not None:
            return Path(self.root)
        candidates = data_folders(self.folder)
        return next((path for path in candidates if path.is_dir()), candidates[0])

    @classmethod
    def locate(cls) -> Path | None:
        """Where the data set lies on this machine, without a given root; None where it is not here."""
        return next((path for path in data_folders(cls.folder) if path.is_dir()), None)

    def fetch(self) -> None:
        """Bring the data set to this machine where it is missing. Raises DataError that says what was tried."""
        return

    def prepare_data(self) -> None:
        """Lightning's hook, once per node. What `predict` reads is given to it: nothing is fetched for that."""
        if self.trainer is None or not self.trainer.predicting:
            self.fetch()

    def setup(self, stage: str) -> None:
        """Load the splits of a stage (`fit`, `validate`, `test`, `predict`)."""
        if stage == "predict":
            self.splits["predict"] = self.load_inputs(self.inputs)
            return
        self.facts = self.describe()
        needed: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        if self.fold is not None and self.fold.is_all:
            if stage == "validate":
                raise UsageError("there is nothing to validate on: with fold=all everything is trained on.")
            needed["fit"] = ("train",)
        for split in needed[stage]:
            if split not in self.splits:
                self.splits[split] = self._source(split)

    def _source(self, split: Split) -> BatchSource:
        return self.load(split) if self.fold is None or split == "test" else self.load_fold(split, self.fold)

    def train_dataloader(self) -> TrainLoader:
        """Shuffled batches of the training split."""
        loader = self._loader("train", TrainLoader, shuffle=True)
        assert isinstance(loader, TrainLoader)
        loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Batches of the validation split, each item once over all processes; an empty list where there is none."""
        return self._loader("val", DataLoader) if "val" in self.splits else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of the test split, each item once over all processes."""
        return self._loader("test", DataLoader)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of what `predict` was given, each input once over all processes."""
        return self._loader("predict", DataLoader)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Lightning's hook. Lightning's own looks into each batch for what can be moved, which here is known."""
        if isinstance(batch, tuple) and all(isinstance(part, Tensor) for part in batch):
            if all(part.device == device for part in batch):
                return batch
            return type(batch)(*(part.to(device, non_blocking=True) for part in batch))
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Lightning's hook: the batch has arrived on the device. The first of a stage is looked at."""
        stage = None if self.trainer is None else self.trainer.state.stage
        training = stage is RunningStage.TRAINING
        if stage is self._stage_seen:
            return self.transform(batch, training)
        self._require_declared(f"its {first_batch(stage)} is", batch)
        transformed = self.transform(batch, training)
        self._require_declared(f"transform makes of its {first_batch(stage)}", transformed)
        self._stage_seen = stage
        return transformed

    def _require_declared(self, where: str, batch: Any) -> None:
        declared = self.batch_type()
        if declared is not None and (breach := wrong_batch(where, batch, declared)):
            raise breach.error(type(self))

    def _order_seed(self) -> int:
        """The seed of `seed_everything`, which is the same in all processes; the splits' seed where none was set."""
        return int(os.environ.get("PL_GLOBAL_SEED", self.seed))

    def _loader(self, split: str, kind: type[DataLoader[Any]], shuffle: bool = False) -> DataLoader[Any]:
        source: Any = self.splits[split]
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if not shuffle and 0 < len(source) < world_size:
            raise UsageError(
                f"{split} has too few items ({len(source)}) for {world_size} processes: one without any would keep the "
                f"others waiting. Use fewer: --trainer.devices {len(source)}."
            )
        batch_size = self.batch_size or max(1, len(source))
        return kind(
            source,
            batch_size=batch_size,
            sampler=ShardedSampler(len(source), rank, world_size, shuffle, self._order_seed(), batch_size),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=identity,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=functools.partial(_start_worker, rank),
        )


def _start_worker(rank: int, worker: int) -> None:
    signals.spare_worker()
    if int(os.environ.get("PL_SEED_WORKERS", "0")):  # as Lightning does where a loader names no function
        pl_worker_init_function(worker, rank)
