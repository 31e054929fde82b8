"""Content and style pictures, every content with every style: pairs of which each is painted for itself."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from leyden.batches import StyleFacts, StylePairs
from leyden.data import BatchSource, DataModule, Split
from leyden.errors import DataError, UsageError
from leyden_datamodules._images import SUFFIXES, input_files, open_picture, picture_files, upright_size

SMALLEST_SIDE, LARGEST_SIDE = 16, 4096  # pixels
UNKNOWN_PAIR = -1
Size = tuple[int, int]  # height, width in pixels


class Pair(NamedTuple):
    """Which pictures: the indices of content and style, and the number of the pair in the facts, or UNKNOWN_PAIR."""

    content: int
    style: int
    number: int


class Pictures:
    """Picture files, each decoded once, at its size. files: N paths. sizes: N."""

    def __init__(self, files: Sequence[Path], sizes: Sequence[Size]) -> None:
        self.files = files
        self.sizes = sizes
        self._decoded: dict[int, Tensor] = {}

    def __getitem__(self, index: int) -> Tensor:
        """Picture `index`: (3, H, W) uint8, not to be changed in place. Raises DataError naming the file."""
        if index not in self._decoded:
            height, width = self.sizes[index]
            # twice the size leaves the resizing enough pixels to average
            picture = open_picture(self.files[index], "RGB", at_least=2 * max(height, width))
            self._decoded[index] = pil_to_tensor(picture.resize((width, height), Image.Resampling.BILINEAR))
        return self._decoded[index]

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Pictures of one size: (B, 3, H, W) uint8; a view where all are the same one."""
        first = self[indices[0]]
        if len(set(indices)) == 1:
            return first.expand(len(indices), *first.shape)
        return torch.stack([self[index] for index in indices])


class Pairs(Dataset[StylePairs]):
    """Pairs of pictures in order. Without styles, as in `predict`, these have no pixels."""

    def __init__(self, contents: Pictures, styles: Pictures | None, pairs: Sequence[Pair]) -> None:
        self.contents = contents
        self.styles = styles
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitems__(self, indices: Sequence[int]) -> StylePairs:
        chosen = [self.pairs[index] for index in indices]
        contents = self.contents.batch([pair.content for pair in chosen])
        none = contents[:, :, :0, :0]
        styles = none if self.styles is None else self.styles.batch([pair.style for pair in chosen])
        return StylePairs(contents, styles, torch.tensor([pair.number for pair in chosen]))

    @property
    def inputs(self) -> list[str]:
        """The path of each content."""
        return [str(self.contents.files[pair.content]) for pair in self.pairs]

    def picture(self, index: int) -> Image.Image:
        """The content of item `index`, in RGB, at the size at which it is painted."""
        picture: Image.Image = to_pil_image(self.contents[self.pairs[index].content])
        return picture


class StylePair(DataModule[StylePairs]):
    """Your own pictures for style transfer: a content and a style, or folders of them, every content with every style.

    All splits are the same pairs, since each picture is painted for itself and nothing is learnt for others; training
    is offered each pair many times in an epoch. Pictures of any kind are read in RGB, transparent parts on white; of an
    animated one the first frame counts. They must have at least 16 pixels in both directions, before and after they are
    resized, and not more than Pillow decodes (178 million in all); larger ones than wanted are reduced.

    `predict` finds a trained run's pair by the name of the content.

    Args:
        content: a picture, or a folder of pictures, with sub-folders; without it the folder `content` of the data
            set's.
        style: the same of the style; without it the folder `style` of the data set's.
        image_size: pixels of the longer side of a painted picture, which keeps its content's shape; or [height, width],
            which does not. From 16 to 4096.
        style_size: the same of the style pictures; without it they are resized as contents are. Strokes are as large
            as this makes them.
        steps_per_epoch: how often an epoch offers each pair.
        batch_size: pairs that are painted in one step. More than one must have contents of one size, and styles of one.
        **data_module: the arguments of every data module.

    Raises:
        UsageError: for a value out of its range, for a fold, and for sizes that cannot be in one batch.
        DataError: for a file or folder that cannot be used, naming it.
    """

    folder = "style"
    held_out = False

    def __init__(
        self,
        content: str | None = None,
        style: str | None = None,
        image_size: int | list[int] = 450,
        style_size: int | list[int] | None = None,
        steps_per_epoch: int = 50,
        batch_size: int | None = 1,
        **data_module: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **data_module)
        self.image_size = _checked("image_size", image_size)
        self.style_size = self.image_size if style_size is None else _checked("style_size", style_size)
        if steps_per_epoch < 1:
            raise UsageError(f"steps_per_epoch is {steps_per_epoch}; it must be at least 1.")
        if self.fold is not None:
            raise UsageError("StylePair has no folds: each picture is painted for itself, and none is held out.")
        self.content = content
        self.style = style
        self.steps_per_epoch = steps_per_epoch

    @classmethod
    def fabricate(cls, root: Path) -> dict[str, Any]:
        """Three contents of discs, as PNG, and a style of stripes, as JPEG."""
        for number in range(3):
            _save(_disc(number), root / "content" / f"disc_{number}.png")
        _save(_stripes(), root / "style" / "stripes.jpg")
        return {"root": str(root), "image_size": [64, 96], "steps_per_epoch": 5}

    @classmethod
    def fabricate_inputs(cls, folder: Path) -> list[str]:
        """The contents again."""
        paths = [folder / f"disc_{number}.png" for number in range(3)]
        for number, path in enumerate(paths):
            _save(_disc(number), path)
        return [str(path) for path in paths]

    def describe(self) -> StyleFacts:
        """Names and size of every content with every style."""
        contents, styles = self._contents, self._styles
        return StyleFacts(
            tuple(
                (content, style, *size)
                for content, size in zip(self._names("content", contents), contents.sizes, strict=True)
                for style in self._names("style", styles)
            )
        )

    def load(self, split: Split) -> BatchSource:
        """All pairs; for training many times."""
        contents, styles = self._contents, self._styles
        for name, pictures in {"contents": contents, "styles": styles}.items():
            self._require_one_size(name, pictures.sizes)
        places = [(content, style) for content in range(len(contents.files)) for style in range(len(styles.files))]
        pairs = [Pair(*place, number) for number, place in enumerate(places)]
        return Pairs(contents, styles, pairs * (self.steps_per_epoch if split == "train" else 1))

    def load_inputs(self, inputs: Sequence[str]) -> Pairs:
        """Picture files, and folders of them, in the order given: each with every style that the facts pair it with."""
        files = input_files(inputs)
        known = self.facts.pairs if isinstance(self.facts, StyleFacts) else ()
        pairs, sizes = [], []
        for place, file in enumerate(files):
            found = [number for number, pair in enumerate(known) if _is_named(file, pair[0])]
            sizes.append(known[found[0]][2:] if found else target_size(file, self.image_size, "image_size"))
            pairs += [Pair(place, 0, number) for number in found or [UNKNOWN_PAIR]]
        self._require_one_size("inputs", sizes)
        return Pairs(Pictures(files, sizes), None, pairs)

    def transform(self, batch: StylePairs, training: bool) -> StylePairs:
        """uint8 pictures as stored to float32 in [0, 1]."""
        contents, styles = (pixels.to(torch.float32).mul_(1 / 255) for pixels in (batch.contents, batch.styles))
        return StylePairs(contents, styles, batch.pairs)

    @cached_property
    def _contents(self) -> Pictures:
        files = self._files("content")
        return Pictures(files, [target_size(file, self.image_size, "image_size") for file in files])

    @cached_property
    def _styles(self) -> Pictures:
        files = self._files("style")
        return Pictures(files, [target_size(file, self.style_size, "style_size") for file in files])

    def _place(self, what: str) -> Path:
        """The file or folder of the contents, or of the styles."""
        given: str | None = getattr(self, what)
        return self.path() / what if given is None else Path(given).expanduser()

    def _files(self, what: str) -> list[Path]:
        place = self._place(what)
        if place.is_file():
            return [place]
        if not place.is_dir():
            raise DataError(
                f"{place}: no such file or folder. It is looked for as the {what}; name another: --data.{what} PATH."
            )
        files = picture_files(place)
        if not files:
            raise DataError(f"{place}: no pictures in this folder; looked for {', '.join(sorted(SUFFIXES))}.")
        return files

    def _names(self, what: str, pictures: Pictures) -> list[str]:
        """What the pictures are called: a file's own name, with those of the sub-folders that it is in."""
        place = self._place(what)
        return [file.relative_to(place).as_posix() if file != place else file.name for file in pictures.files]

    def _require_one_size(self, name: str, sizes: Sequence[Size]) -> None:
        if self.batch_size != 1 and len(set(sizes)) > 1:
            (height, width), (other_height, other_width), *_ = dict.fromkeys(sizes)
            raise UsageError(
                f"{name} of {height} x {width} and of {other_height} x {other_width} pixels cannot be in one batch. "
                "Set --data.batch_size 1, or make them alike by --data.image_size [HEIGHT,WIDTH]."
            )


def target_size(file: Path, wanted: int | Size, option: str) -> Size:
    """The size that a picture is resized to: its longer side, or height and width, as wanted.

    Raises DataError naming the file, where one of its sides is, or would become, too short.
    """
    height, width = upright_size(file)
    require_large_enough((height, width), file)
    if not isinstance(wanted, int):
        return wanted
    scale = wanted / max(height, width)
    size = round(scale * height), round(scale * width)
    if min(size) < SMALLEST_SIDE:
        raise DataError(
            f"{file}: {width} x {height} pixels, which with {option} {wanted} would become {size[1]} x {size[0]}; "
            f"expected at least {SMALLEST_SIDE} in both directions. Cut a part out of it."
        )
    return size


def require_large_enough(size: Size, file: Path) -> None:
    """DataError naming the file, unless the picture has 16 pixels in both directions."""
    if min(size) < SMALLEST_SIDE:
        found = f"{size[1]} x {size[0]} pixels"
        raise DataError(f"{file}: {found}, expected at least {SMALLEST_SIDE} in both directions.")


def _checked(name: str, size: int | Sequence[int]) -> int | Size:
    """What a size is given as. Raises UsageError for what it cannot be."""
    if isinstance(size, int):
        if SMALLEST_SIDE <= size <= LARGEST_SIDE:
            return size
    elif len(size) == 2 and all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
        return size[0], size[1]
    raise UsageError(
        f"{name} is {size if isinstance(size, int) else list(size)}; it must be the longer side or [height, width], "
        f"from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels."
    )


def _is_named(file: Path, name: str) -> bool:
    parts = Path(name).parts
    return file.parts[-len(parts) :] == parts


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _disc(number: int) -> Image.Image:
    rows, columns = np.mgrid[:80, :120]
    inside = (rows - 40) ** 2 + (columns - 30 - 30 * number) ** 2 < 30**2
    random = np.random.default_rng(number)
    ground, disc = random.integers(0, 256, (2, 3))
    noise = random.integers(-20, 21, (80, 120, 3))
    return Image.fromarray(np.clip(np.where(inside[..., None], disc, ground) + noise, 0, 255).astype(np.uint8))


def _stripes() -> Image.Image:
    rows, columns = np.mgrid[:90, :110]
    return Image.fromarray(np.array([[200, 60, 30], [20, 40, 120]], dtype=np.uint8)[(rows + columns) // 7 % 2])
