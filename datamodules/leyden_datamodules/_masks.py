"""Masks: the class of each pixel, read from palette, grey and colour-coded pictures; Pascal VOC's colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from leyden.batches import VOID
from leyden.errors import DataError
from leyden_datamodules._images import unreadable

Colour = tuple[int, int, int]
INDEX_MODES, COLOUR_MODES = ("P", "L", "1", "I", "I;16"), ("RGB", "RGBA")  # PIL's


def voc_palette(count: int) -> tuple[Colour, ...]:
    """The first `count` (up to 256) colours of Pascal VOC's devkit, function VOClabelcolormap.

    Bits 0, 3 and 6 of an index are the highest bits of its red, bits 1, 4 and 7 of its green, bits 2 and 5 of its blue.
    """

    def channel(index: int, lowest: int) -> int:
        return sum((index >> (3 * place + lowest) & 1) << (7 - place) for place in range(3))

    return tuple((channel(index, 0), channel(index, 1), channel(index, 2)) for index in range(count))


VOC_VOID = voc_palette(VOID + 1)[VOID]
BLACK = (0, 0, 0)


def palette_of(mask: Path) -> tuple[Colour, ...]:
    """The colours in a palette picture; none in a picture of another kind. Raises DataError naming the file."""
    try:
        with Image.open(mask) as image:
            values = image.getpalette("RGB") or []
    except Exception as error:  # PIL's decoders raise whatever a damaged file makes them stumble over
        raise unreadable(mask, error) from error
    return tuple(zip(values[::3], values[1::3], values[2::3], strict=True))


@dataclass(frozen=True)
class MaskReader:
    """Reads masks.

    palette: the colour of each class; no two are the same. classes: what these are, for messages.

    In palette and grey pictures a pixel's value is its class, or VOID. In RGB pictures its colour is that of its class;
    VOC's colour of void, (224, 224, 192), and black are VOID unless a class has them.
    """

    palette: tuple[Colour, ...]
    classes: str

    def read(self, path: Path) -> Tensor:
        """The mask (H, W) uint8 of class indices and VOID. Raises DataError naming file, value and place."""
        try:
            with Image.open(path) as image:
                mode, values = image.mode, np.array(image)
        except Exception as error:  # PIL's decoders raise whatever a damaged file makes them stumble over
            raise unreadable(path, error) from error
        if mode in INDEX_MODES:
            return torch.from_numpy(self._indices(path, values))
        if mode in COLOUR_MODES:
            return torch.from_numpy(self._of_colours(path, values))
        raise DataError(
            f"{path}: a mask of the kind {mode}; expected a palette or a grey picture of class indices (P, L), or one "
            "in the colours of the classes (RGB)."
        )

    def _indices(self, path: Path, values: NDArray[Any]) -> NDArray[np.uint8]:
        count = len(self.palette)
        wrong = ((values < 0) | (values >= count)) & (values != VOID)
        if wrong.any():
            row, column = _first(wrong)
            raise DataError(
                f"{path}: value {values[row, column]} at row {row}, column {column} (from 0); expected 0 to "
                f"{count - 1}, {self.classes}, or {VOID} (void)."
            )
        return values.astype(np.uint8, copy=False)

    def _of_colours(self, path: Path, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        codes, indices = self._codes
        found = _code(values[..., 0], values[..., 1], values[..., 2])
        place = np.searchsorted(codes, found).clip(max=len(codes) - 1)
        wrong = codes[place] != found
        if wrong.any():
            row, column = _first(wrong)
            colour = tuple(values[row, column, :3].tolist())
            raise DataError(
                f"{path}: colour {colour} at row {row}, column {column} (from 0) is none of {self.classes}. In an "
                f"RGB mask expected are {_some(self.palette)}, or {VOC_VOID} (void)."
            )
        mask: NDArray[np.uint8] = indices[place]
        return mask

    @cached_property
    def _codes(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Each known colour as a number, sorted, and the index that it stands for."""
        table = {VOC_VOID: VOID, BLACK: VOID} | {colour: index for index, colour in enumerate(self.palette)}
        colours = np.array(list(table), dtype=np.int32)
        codes = _code(*colours.T)
        order = codes.argsort()
        return codes[order], np.array(list(table.values()), dtype=np.uint8)[order]


def _code(red: NDArray[Any], green: NDArray[Any], blue: NDArray[Any]) -> NDArray[np.int32]:
    """A colour as one number."""
    code: NDArray[np.int32] = red.astype(np.int32) << 16 | green.astype(np.int32) << 8 | blue
    return code


def _first(wrong: NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column of the first True."""
    row, column = divmod(int(wrong.argmax()), wrong.shape[1])
    return row, column


def _some(palette: Sequence[Colour]) -> str:
    """Colours for a message, the first few of many."""
    return ", ".join(map(str, palette[:5])) + (", ..." if len(palette) > 5 else "")
