"""The rules for data modules: batches, splits, shares of several processes, damaged and missing files."""

import contextlib
import copy
import json
import math
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from leyden.batches import ImageFacts
from leyden.data import DataModule
from leyden.download import NoSourceError
from leyden.errors import DataError, LeydenError, UsageError
from leyden.rules import kind, undeclared_batch, wrong_batch
from leyden.testing.rules import BrokenRule, check_documented, equal, require, require_kept

SPLITS = ("train", "val", "test")
INPUTS = 5  # for predict; an odd number, so that two processes get unequal shares
DAMAGED_FILES = 12  # how many files of a data set are damaged, one at a time
DataClass = type[DataModule[Any]]


def check_data(data: DataClass, folder: Path) -> None:
    """A data module on what its `fabricate` writes.

    Args:
        data: the class. No item that it fabricates may be the same in two splits, or that is taken for a leak.
        folder: an empty folder to work in.
    """
    case = Fabricated(data, folder)
    for check in RULES.values():
        check(case)


@dataclass
class Fabricated:
    """A data module, and a folder for what it fabricates."""

    data: DataClass
    folder: Path

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """What the data module is made with; its data is written on the way."""
        return self.data.fabricate(self.folder / "data")

    @cached_property
    def module(self) -> DataModule[Any]:
        """The data module with all splits."""
        try:
            return load_all(self.data, self.arguments)
        except LeydenError as error:
            found = f"{self.data.__name__} cannot load what its fabricate() has written: {error}"
            raise BrokenRule(
                found, "It must be a tiny data set in the real on-disk format: there is no other."
            ) from error

    @cached_property
    def inputs(self) -> list[str]:
        """What `predict` is given."""
        return make_inputs(self.data, self.module, self.folder / "inputs")

    @property
    def files(self) -> list[Path]:
        """The files of the data set; none where it is computed."""
        return _files(self.folder / "data")


def load_all(data: DataClass, arguments: dict[str, Any]) -> DataModule[Any]:
    """The data module with all its splits, without a network."""
    module = data(**arguments)
    with no_network():
        module.prepare_data()
        module.setup("fit")
        module.setup("test")
    return module


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """Every connection fails at once, and no other program is found."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("Network is unreachable")

    with (
        tempfile.TemporaryDirectory() as empty,
        mock.patch.dict(os.environ, {"PATH": empty, "LEYDEN_DATA": empty}),
        mock.patch.object(socket.socket, "connect", refuse),
        mock.patch.object(socket, "getaddrinfo", refuse),
    ):
        yield


def make_inputs(data: DataClass, module: DataModule[Any], folder: Path) -> list[str]:
    """What `predict` is given: pictures of the test split as PNG files, or what the data module fabricates."""
    folder.mkdir(parents=True, exist_ok=True)
    source: Any = module.splits["test"]
    if hasattr(data, "fabricate_inputs"):
        fabricated: list[str] = data.fabricate_inputs(folder)
        return fabricated
    why = "Offer a class method fabricate_inputs(folder) -> list[str]."
    require(hasattr(source, "picture"), f"{data.__name__} has no pictures to try `predict` on", why)
    paths = [folder / f"{index}.png" for index in range(min(INPUTS, len(source)))]
    for index, path in enumerate(paths):
        source.picture(index).save(path)
    return [str(path) for path in paths]


def _check_facts(module: DataModule[Any]) -> None:
    name, batch_type = type(module).__name__, type(module).batch_type()
    facts: Any = module.facts
    facts_class: Any = getattr(batch_type, "facts_class", lambda: type(None))()
    found = f"describe() of {name} gives {kind(facts)}, expected {facts_class.__name__}"
    require(isinstance(facts, facts_class), found, "The network is built from these facts.")
    again = facts_class.from_primitives(json.loads(json.dumps(facts.to_primitives())))
    found = f"the facts of {name} do not survive being written: {facts} becomes {again}"
    require(again == facts, found, "`predict` has nothing but the facts in the checkpoint.")


def _check_batches(module: DataModule[Any], split: str) -> None:
    name, source = f"the {split} split of {type(module).__name__}", module.splits[split]
    require(len(source), f"{name} is empty", "`fit` and `test` need every split.")
    indices = _some(source)
    batch, declared = source.__getitems__(indices), type(module).batch_type()
    assert declared is not None
    require_kept(type(module).__name__, wrong_batch(f"the {split} split gives", batch, declared))
    for position, index in enumerate(indices):
        same = _holds(batch, position, source.__getitems__([index]))
        require(same, f"item {index} of {name} is another in a batch than alone", "Results would depend on batch size.")


def _some(source: Any) -> list[int]:
    """Three items, not in order."""
    return [len(source) - 1, 0, len(source) // 2]


def _holds(batch: Any, position: int, item: Any) -> bool:
    """Whether a batch holds, perhaps padded, this item (a batch of one)."""
    for many, one in zip(batch, item, strict=True):
        mine, alone = many[position], one[0]
        if isinstance(mine, torch.Tensor):
            mine = mine[tuple(slice(length) for length in alone.shape)]
        if not equal(mine, alone):
            return False
    return True


def _check_transform(module: DataModule[Any], split: str) -> None:
    name, source = type(module).__name__, module.splits[split]
    indices = _some(source)
    before = copy.deepcopy(source.__getitems__(indices))
    for training in (True, False):
        batch = module.transform(source.__getitems__(indices), training)
        right = type(batch) is type(before) and len(batch[0]) == len(indices)
        found = f"transform(training={training}) of {name} makes {kind(batch)} of {kind(before)}"
        require(right, found, "The task reads as many items, in batches of the declared type.")
        if isinstance(module.facts, ImageFacts):
            _check_images(name, batch, module.facts)
    kept = equal(source.__getitems__(indices), before)
    require(kept, f"transform of {name} changes the stored data", "The second epoch would be given other data.")
    again = module.transform(source.__getitems__(indices), False)
    require(equal(again, batch), f"transform of {name} is random in evaluation", "No test could be repeated.")


def _check_images(name: str, batch: Any, facts: ImageFacts) -> None:
    images, labels = batch[:2]
    right = images.dtype == torch.float32 and tuple(images.shape[1:]) == (facts.channels, *facts.image_size)
    found = f"{name} gives images {images.dtype} {tuple(images.shape)}, its facts are {facts}"
    require(right, found, "The network is built for float32 images of what the facts say.")
    known = labels.is_floating_point() or 0 <= int(labels.min()) <= int(labels.max()) < len(facts.class_names)
    found = f"{name} gives labels up to {labels.max()}, its facts are {facts}"
    require(known, found, "The network has one output for each class name.")


def _check_splits(module: DataModule[Any], again: DataModule[Any]) -> None:
    name = type(module).__name__
    contents = {split: _contents(module.splits[split]) for split in SPLITS}
    for split in SPLITS:
        same = contents[split] == _contents(again.splits[split])
        why = "A run that is resumed would be validated on what it was trained on."
        require(same, f"the {split} split of {name} is another at the next start with the same seed", why)
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if not module.held_out:
            same = set(contents[one]) == set(contents[other])
            why = "With held_out = False all splits are the same items."
            require(same, f"{one} and {other} of {name} hold different items", why)
            continue
        shared = len(set(contents[one]) & set(contents[other]))
        require(not shared, f"{one} and {other} of {name} share {shared} items", "Metrics on them would be too good.")


def _contents(source: Any) -> list[bytes]:
    return [source.__getitems__([index])[0].numpy().tobytes() for index in range(len(source))]


class _Recorder:
    """A data set that writes down which items are asked for."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.given: list[int] = []

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, indices: Sequence[int]) -> Any:
        self.given += [int(index) for index in indices]
        return self.source.__getitems__(indices)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


def _check_shares(module: DataModule[Any], split: str) -> None:
    """What two processes are given together."""
    source, batches, given = module.splits[split], [], []
    for rank in range(2):
        recorder = _Recorder(source)
        trainer: Any = SimpleNamespace(global_rank=rank, world_size=2, training=False, num_training_batches=math.inf)
        module.splits[split], module.trainer = recorder, trainer
        batches.append(sum(1 for _ in getattr(module, f"{split}_dataloader")()))
        given += recorder.given
        module.splits[split], module.trainer = source, None
    what = f"of the {split} split of {type(module).__name__} two processes are given {len(given)} items"
    every = set(given) == set(range(len(source)))
    require(every, f"{what}, which are not all its {len(source)} items", "Some data would never be seen.")
    if split == "train":
        why = "One process would wait for ever for the other."
        require(batches[0] == batches[1], f"{what} in {batches[0]} and {batches[1]} batches", why)
    else:
        once = len(given) == len(source)
        require(once, f"{what}, some of its {len(source)} twice", "Metrics would differ from those of one process.")


def _check_inputs(case: Fabricated) -> None:
    """`predict` has its inputs and the checkpoint's facts, but not the data set."""
    data, inputs = case.data, case.inputs
    predicting = data(**{**case.arguments, "root": str(case.folder / "nowhere")})
    predicting.facts, predicting.inputs = case.module.facts, inputs
    try:
        with no_network():
            predicting.setup("predict")
    except LeydenError as error:
        found = f"{data.__name__} loads no inputs where its data set is missing: {error}"
        raise BrokenRule(found, "`predict` is given its inputs and a checkpoint, and nothing else.") from error
    source: Any = predicting.splits["predict"]
    named = len(source) == len(inputs) and list(getattr(source, "inputs", ())) == inputs
    why = "Its attribute `inputs` must name each one, in the order given, for predictions.jsonl."
    require(named, f"load_inputs of {data.__name__} does not give back its {len(inputs)} inputs", why)


def _check_damaged(data: DataClass, arguments: dict[str, Any], path: Path, root: Path) -> None:
    whole, files = path.read_bytes(), _files(root)
    half = whole[: len(whole) // 2]
    damages = {"is empty": b"", "begins with other bytes": b"\xff" * 16 + whole[16:], "is cut in half": half}
    for damage, content in damages.items():
        with _damaged(path, content):
            error = _error_of(data, arguments)
            left = _files(root)
        found = f"{data.__name__} with a {path.name} that {damage}"
        if error is None:
            undetected = content is not half or not _is_text(whole)  # half a text is a text
            require(not undetected, f"{found} says nothing", "Training would go wrong in silence.")
        else:
            named = isinstance(error, DataError) and path.name in str(error)
            why = "A DataError must name the file, for the person who has to replace it."
            require(named, f"{found} raises {type(error).__name__}: {error}", why)
        require(left == files, f"{found} leaves new files", "They would be taken for good ones.")


@contextlib.contextmanager
def _damaged(path: Path, content: bytes) -> Iterator[None]:
    """The file with another content."""
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(whole)


def _check_missing(data: DataClass, arguments: dict[str, Any], nowhere: Path) -> None:
    """Offline, with a folder that does not exist."""
    found = f"{data.__name__} without its files and without a network"
    error = _error_of(data, arguments)
    if error is None or isinstance(error, UsageError):
        # with the folder alone it may look elsewhere on this machine, or ask for more
        require(arguments.keys() == {"root"}, f"{found} raises {error!r}", "A DataError must say what is missing.")
        return
    says = isinstance(error, DataError) and str(nowhere) in str(error)
    why = f"A DataError must name the place for files that are got by hand, {nowhere}."
    require(says, f"{found} raises {type(error).__name__}: {error}", why)
    tried = not isinstance(error, NoSourceError) or error.tried
    require(tried, f"{found} does not say what it tried: {error}", "The user could not see what to mend.")
    require(not _files(nowhere), f"{found} leaves {_files(nowhere)}", "They would be taken for good ones.")


def _error_of(data: DataClass, arguments: dict[str, Any]) -> Exception | None:
    """What reading every item raises."""
    try:
        for source in load_all(data, arguments).splits.values():
            source.__getitems__(range(len(source)))
    except Exception as error:
        return error
    return None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def _check_declared(case: Fabricated) -> None:
    require_kept(case.data.__name__, undeclared_batch(case.data, "DataModule"))


def _each_split(check: Callable[[DataModule[Any], str], None]) -> Callable[[Fabricated], None]:
    def check_splits(case: Fabricated) -> None:
        for split in SPLITS:
            check(case.module, split)

    return check_splits


def _check_damaged_files(case: Fabricated) -> None:
    files = case.files
    for path in files[:: math.ceil(len(files) / DAMAGED_FILES) or 1]:
        _check_damaged(case.data, case.arguments, path, case.folder / "data")


def _check_missing_files(case: Fabricated) -> None:
    nowhere = case.folder / "nowhere"
    for given in (case.arguments, {}) if case.files else ():  # what is computed cannot be missing
        _check_missing(case.data, {**given, "root": str(nowhere)}, nowhere)


RULES: dict[str, Callable[[Fabricated], None]] = {
    "documented": lambda case: check_documented(case.data),
    "declares_its_batches": _check_declared,
    "facts": lambda case: _check_facts(case.module),
    "batches": _each_split(_check_batches),
    "transform": _each_split(_check_transform),
    "shared_by_processes": _each_split(_check_shares),
    "splits": lambda case: _check_splits(case.module, load_all(case.data, case.arguments)),
    "inputs_of_predict": _check_inputs,
    "damaged_files": _check_damaged_files,
    "missing_files": _check_missing_files,
}
