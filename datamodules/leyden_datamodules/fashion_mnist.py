"""Fashion-MNIST: reading, verifying and, where it is missing, fetching it."""

import gzip
import hashlib
import logging
import math
import struct
import tempfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import torch
from torch import Tensor
from torchvision import datasets

from leyden.batches import ImageFacts, LabelledImages
from leyden.data import BatchSource, InMemory, Part, Split, data_folders
from leyden.download import Attempt, Download, NoSourceError, fetch, unpack_debian_package
from leyden.errors import DataError, UsageError
from leyden_datamodules._images import ImageData

logger = logging.getLogger("leyden")
SIDE = 28
# MD5 of the decompressed bytes: archives of one file differ with the program that wrote them.
FILES = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
DEBIAN_PACKAGE, DEBIAN_FOLDER = "dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist")
CHUNK = 1 << 20


class FashionMNIST(ImageData):
    """Fashion-MNIST: 70,000 grey pictures of clothes, 28 x 28 pixels, 10 classes (Xiao et al. 2017).

    The files are looked for in the data set's folder (also as torchvision lays them out), then in the folder of the
    Debian package dataset-fashion-mnist; where they are nowhere, they are fetched into the data set's folder from
    torchvision's mirrors or out of that package, which needs no root. Images are held as bytes, once.

    Args:
        resize: side in pixels to which each batch is resized; null keeps 28.
        val_size: images cut from the 60,000 training images, by seed, for validation.
        verify: check each file against Fashion-MNIST's checksums. false reads another data set in the same format and
            with the same names from the given folder, and fetches nothing.
        **image_data: the arguments of every data module of labelled images.

    Raises:
        UsageError: for a value out of its range.
        DataError: for a missing, damaged or wrong file, naming it.
    """

    folder = "FashionMNIST"
    mean = (0.2860,)
    std = (0.3530,)

    def __init__(self, resize: int | None = None, val_size: int = 5000, verify: bool = True, **image_data: Any) -> None:
        super().__init__(**image_data)
        if resize is not None and resize < 1:
            raise UsageError(f"resize is {resize}; it must be at least 1 pixel (or null: keep {SIDE}).")
        if val_size < 1:
            raise UsageError(f"val_size is {val_size}; it must be at least 1: each epoch is validated.")
        self.resize = resize
        self.val_size = val_size
        self.verify = verify

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """96 training and 27 test images: a bright patch, whose place tells the class, in noise."""
        root.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(0)
        for part, count in {"train": 96, "t10k": 27}.items():
            labels = torch.arange(count) % 10
            images = torch.randint(0, 100, (count, SIDE, SIDE), generator=generator)
            for image, label in zip(images, labels.tolist(), strict=True):
                top, left = 14 * (label // 5), 5 * (label % 5)
                image[top : top + 14, left : left + 5] += 150
            _write_idx(root / f"{part}-images-idx3-ubyte.gz", images.to(torch.uint8))
            _write_idx(root / f"{part}-labels-idx1-ubyte.gz", labels.to(torch.uint8))
        return {"root": str(root), "verify": False, "val_size": 21, "batch_size": 16}

    @classmethod
    def locate(cls) -> Path | None:
        """The folder of the files, which may be that of Debian's package."""
        found = cls()._found()
        return None if found is None else next(iter(found.values())).parent

    def fetch(self) -> None:
        """From torchvision's mirrors, else out of Debian's package. Raises NoSourceError where neither works."""
        found = self._found()
        if found is None:
            self._fetch()
        elif self.root is not None and not any(path.is_relative_to(self.root) for path in found.values()):
            place = next(iter(found.values())).parent
            logger.warning("--data.root %s does not hold Fashion-MNIST; reading it from %s", self.root, place)

    def describe(self) -> ImageFacts:
        """One channel, 28 x 28 or as resized, the ten names."""
        side = self.resize or SIDE
        return ImageFacts(channels=1, image_size=(side, side), class_names=tuple(datasets.FashionMNIST.classes))

    def load(self, split: Split) -> BatchSource:
        """`test` is the official test set, `train` and `val` are two parts of the official training set."""
        if split == "test":
            return InMemory(self._read("t10k"))
        data = self._training_data
        if self.val_size >= len(data):
            raise UsageError(f"val_size is {self.val_size}, but there are only {len(data)} training images.")
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.seed))
        chosen = order[: self.val_size] if split == "val" else order[self.val_size :]
        return Part(data, chosen.sort().values)

    @cached_property
    def _training_data(self) -> InMemory:
        return InMemory(self._read("train"))

    def _read(self, part: Literal["train", "t10k"]) -> LabelledImages:
        found = self._found()
        if found is None:
            raise self._missing(self._looked_in())
        images_path, labels_path = (found[name] for name in FILES if name.startswith(part))
        images = read_idx(images_path, (SIDE, SIDE), self._md5(images_path))
        labels = read_idx(labels_path, (), self._md5(labels_path))
        if len(labels) != len(images):
            raise DataError(f"{labels_path}: {len(labels)} labels for the {len(images)} images in {images_path}.")
        if len(labels) and int(labels.max()) > 9:
            raise DataError(f"{labels_path}: label {int(labels.max())}, expected 0 to 9.")
        return LabelledImages(images[:, None], labels.long())

    def _md5(self, path: Path) -> str | None:
        return FILES[path.name.removesuffix(".gz")] if self.verify else None

    def _places(self) -> list[Path]:
        """The folders to look in."""
        if not self.verify:  # only there: Fashion-MNIST itself must not stand in for somebody's own data
            return [self.path()]
        given = [] if self.root is None else [Path(self.root)]
        return [*given, *data_folders(self.folder), DEBIAN_FOLDER]

    def _found(self) -> dict[str, Path] | None:
        """The path of each file in the first folder that holds all four, plain or compressed."""
        for place in self._places():
            for layout in ("", "raw", "FashionMNIST/raw"):  # torchvision puts them into FashionMNIST/raw
                found = {name: path for name in FILES for path in _candidates(place / layout / name) if path.is_file()}
                if len(found) == len(FILES):
                    return found
        return None

    def _looked_in(self) -> list[Attempt]:
        return [Attempt(str(place.absolute()), "does not hold the four files") for place in self._places()]

    def _missing(self, tried: list[Attempt]) -> NoSourceError:
        return NoSourceError("Fashion-MNIST", tried, [self.path() / f"{name}.gz" for name in FILES])

    def _fetch(self) -> None:
        tried = self._looked_in()
        if not self.verify:
            raise self._missing(tried)
        try:
            for download in _downloads():
                fetch(download, self.path())
        except NoSourceError as error:
            tried += error.tried
        else:
            return
        try:
            self._fetch_from_debian()
        except DataError as error:
            raise self._missing([*tried, Attempt(f"apt-get download {DEBIAN_PACKAGE}", str(error))]) from error

    def _fetch_from_debian(self) -> None:
        folder = self.path()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as temporary:
                unpack_debian_package(DEBIAN_PACKAGE, Path(temporary))
                unpacked = [Path(temporary, *DEBIAN_FOLDER.parts[1:], f"{name}.gz") for name in FILES]
                for path in unpacked:
                    read_idx(path, (SIDE, SIDE) if "images" in path.name else (), self._md5(path))
                for path in unpacked:
                    path.replace(folder / path.name)
        except OSError as error:
            raise DataError(f"{folder}: {error.strerror or error}") from error


def _downloads() -> list[Download]:
    official = datasets.FashionMNIST
    return [
        Download(name, tuple(mirror + name for mirror in official.mirrors), f"md5:{md5}")
        for name, md5 in official.resources
    ]


def _candidates(path: Path) -> tuple[Path, Path]:
    """A file's names, the one to prefer last: what is plain need not be decompressed."""
    return path.with_name(f"{path.name}.gz"), path


def read_idx(path: Path, item_shape: tuple[int, ...], md5: str | None = None) -> Tensor:
    """The tensor in an IDX file of unsigned bytes, plain or, with suffix .gz, compressed.

    item_shape: what the file's dimensions must be behind the first. md5: of all decompressed bytes; None is unchecked.
    Returns (N, *item_shape) uint8. Raises DataError naming the file. Format: the end of yann.lecun.com/exdb/mnist.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _read_idx(cast(BinaryIO, file), path, item_shape, md5)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}). {_ADVICE}") from error


_ADVICE = "Remove it, or put a good copy in its place."


def _read_idx(file: BinaryIO, path: Path, item_shape: tuple[int, ...], md5: str | None) -> Tensor:
    dimensions = 1 + len(item_shape)
    header = file.read(4 + 4 * dimensions)
    expected = f"an IDX file of unsigned bytes in {dimensions} dimensions (N{''.join(f', {n}' for n in item_shape)})"
    if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path}: begins with {header[:4].hex()}, expected {expected}. {_ADVICE}")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if shape[1:] != item_shape:
        raise DataError(f"{path}: its dimensions are {shape}, expected {expected}. {_ADVICE}")
    size = math.prod(shape)
    if not size:
        raise DataError(f"{path}: holds no items. {_ADVICE}")
    if size > 1100 * path.stat().st_size:  # gzip saves no more: do not reserve what a damaged header asks for
        raise DataError(f"{path}: too short for its {shape[0]} items. {_ADVICE}")
    tensor = torch.empty(shape, dtype=torch.uint8)
    digest = hashlib.md5(header, usedforsecurity=False)
    found = 0
    for chunk in _filled(file, tensor.view(-1).numpy().data):
        found += len(chunk)
        if md5:
            digest.update(chunk)
    if found < size or file.read(1):
        raise DataError(f"{path}: {'fewer' if found < size else 'more'} bytes than its {shape[0]} items. {_ADVICE}")
    if md5 and digest.hexdigest() != md5:
        raise DataError(
            f"{path}: not Fashion-MNIST: MD5 of its decompressed bytes is {digest.hexdigest()}, expected {md5}. "
            f"{_ADVICE} (--data.verify false reads other data in the same format.)"
        )
    return tensor


def _filled(file: BinaryIO, room: memoryview) -> Iterator[memoryview]:
    """Fill `room` from the file and yield it in pieces, as they are filled, to the end of either."""
    start = 0
    while start < len(room) and (count := file.readinto(room[start : start + CHUNK])):  # type: ignore[attr-defined]
        yield room[start : start + count]
        start += count


def _write_idx(path: Path, tensor: Tensor) -> None:
    header = struct.pack(f">4B{tensor.dim()}I", 0, 0, 8, tensor.dim(), *tensor.shape)
    path.write_bytes(gzip.compress(header + tensor.numpy().tobytes(), mtime=0))
