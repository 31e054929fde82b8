"""The data: WAV files in one folder for each class."""

import tempfile
import wave
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from leyden.data import DataModule, InMemory, Part, Split
from leyden.errors import DataError, UsageError
from PIL import Image, ImageDraw
from torch import Tensor

from new_task import toy
from new_task.batch import SignalFacts, Signals

LAYOUT = "NewTaskData reads ROOT/<class>/*.wav"


class NewTaskData(DataModule[Signals]):
    """Signals to classify: WAV files of 16 bits, mono, in one folder for each class.

    All files have one sample rate and one length. Without a root, toy signals are made in the standard folder.

    Args:
        val_fraction: share of the signals cut for validation, by seed.
        test_fraction: share of the signals cut for the test, by seed.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: for a fraction that is out of range.
        DataError: for a folder or a file that cannot be used, naming it.
    """

    folder = "new_task"
    facts: SignalFacts

    def __init__(self, val_fraction: float = 0.15, test_fraction: float = 0.15, **data_module: Any) -> None:
        super().__init__(**data_module)
        if min(val_fraction, test_fraction) <= 0 or val_fraction + test_fraction >= 1:
            raise UsageError(
                f"val_fraction is {val_fraction} and test_fraction {test_fraction}; both must be above 0, their sum "
                "below 1."
            )
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """75 toy signals of each of four kinds."""
        toy.write_folders(root, count=75)
        return {"root": str(root), "batch_size": 16}

    @classmethod
    def fabricate_inputs(cls, folder: Path) -> list[str]:
        """Five toy signals, for `predict`."""
        toy.write_folders(folder, count=2, seed=1)
        return [str(path) for path in waves_at(folder)[:5]]

    def fetch(self) -> None:
        """Make the toy signals where nothing else is asked for; a data set would be downloaded here."""
        folder = self.path()
        if self.root is not None or folder.is_dir():
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new_task-") as unfinished:
            self.fabricate(Path(unfinished, "all"))
            Path(unfinished, "all").rename(folder)  # whole or not at all

    def describe(self) -> SignalFacts:
        """Class names are the folders' names, sorted; sample rate and length are those of the files."""
        names = {path.parent.name for path in self._files}
        return SignalFacts(tuple(sorted(names)), self._waves.sample_rate, self._waves.batch.samples.shape[1])

    def load(self, split: Split) -> Part:
        """The signals that the seed has cut for this split."""
        count = len(self._files)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed))
        val_end = round(self.val_fraction * count)
        test_end = val_end + round(self.test_fraction * count)
        parts = {"val": order[:val_end], "test": order[val_end:test_end], "train": order[test_end:]}
        if not all(map(len, parts.values())):
            raise DataError(f"{self.path()}: {count} signals are too few to cut into three splits.")
        return Part(self._waves, parts[split])

    def transform(self, batch: Signals, training: bool) -> Signals:
        """Samples to float32 in [-1, 1)."""
        return batch._replace(samples=batch.samples.to(torch.float32) / 32768)

    def load_inputs(self, inputs: Sequence[str]) -> "Waves":
        """WAV files, and those in folders, in the order given. They must be as those that were trained on."""
        paths = list(dict.fromkeys(path for name in inputs for path in waves_at(Path(name))))
        if not paths:
            raise DataError(f"{', '.join(inputs)}: no .wav files.")
        waves = Waves(paths, torch.full((len(paths),), -1))
        found = (waves.sample_rate, waves.batch.samples.shape[1])
        if found != (self.facts.sample_rate, self.facts.length):
            raise DataError(
                f"{paths[0]}: {found[1]} samples at {found[0]} Hz, but {self.facts.length} at {self.facts.sample_rate} "
                "Hz were trained on."
            )
        return waves

    def strata(self, pool: Part) -> Tensor:
        """The label of each signal, so that cross-validation gives each fold its share of every class."""
        labels: Tensor = pool.data.batch.labels
        return labels[pool.chosen]

    @cached_property
    def _files(self) -> list[Path]:
        root = self.path()
        files = sorted(root.glob("*/*.wav"))
        if not files:
            raise DataError(f"{root}: no .wav files in class folders. {LAYOUT}.")
        return files

    @cached_property
    def _waves(self) -> "Waves":
        """All signals, with their labels."""
        _, labels = np.unique([path.parent.name for path in self._files], return_inverse=True)
        return Waves(self._files, torch.from_numpy(labels))


class Waves(InMemory):
    """The signals of WAV files, in memory as int16.

    paths: N files. labels: (N,) int64. Raises DataError for a file that cannot be read, or is not like the first.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor) -> None:
        self.inputs = [str(path) for path in paths]  # what `predict` calls them
        self.sample_rate, first = read_wave(paths[0])
        samples = torch.empty((len(paths), len(first)), dtype=torch.int16)
        for row, path in zip(samples, paths, strict=True):
            sample_rate, signal = read_wave(path)
            if (sample_rate, len(signal)) != (self.sample_rate, len(first)):
                raise DataError(
                    f"{path}: {len(signal)} samples at {sample_rate} Hz, but {paths[0]} has {len(first)} at "
                    f"{self.sample_rate} Hz. All must be alike."
                )
            row.copy_(signal)
        super().__init__(Signals(samples, labels))

    def picture(self, index: int) -> Image.Image:
        """Signal `index` as a curve, 320 x 160 pixels."""
        samples = self.batch.samples[index].tolist()
        canvas = Image.new("RGB", (320, 160), "white")
        points = [(320 * place / len(samples), 80 - 80 * sample / 32768) for place, sample in enumerate(samples)]
        ImageDraw.Draw(canvas).line(points, fill="#1f77b4", width=2)
        return canvas


def waves_at(path: Path) -> list[Path]:
    """A file itself; of a folder the WAV files in it and its sub-folders, sorted."""
    return sorted(path.rglob("*.wav")) if path.is_dir() else [path]


def read_wave(path: Path) -> tuple[int, Tensor]:
    """Sample rate in Hz and samples (L,) int16 of a WAV file of 16 bits, mono. Raises DataError naming the file."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, sample_rate, length, *_ = file.getparams()
            content = file.readframes(length)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}.") from error
    except (EOFError, wave.Error) as error:
        raise DataError(f"{path}: is no WAV file, or a damaged one: {error or 'it ends too early'}.") from error
    if (channels, width) != (1, 2):
        raise DataError(f"{path}: {channels} channels of {8 * width} bits, expected 1 of 16.")
    if not length or len(content) != 2 * length:
        raise DataError(f"{path}: holds {len(content) // 2} of the {length} samples that its header promises.")
    return sample_rate, torch.from_numpy(np.frombuffer(content, "<i2").astype(np.int16))
